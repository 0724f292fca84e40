"""Numbers that others published. They are quoted, not recomputed, and share no protocol with ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SOURCE = "UnityVideo, table 1; published, not recomputed"


@dataclass(frozen=True, slots=True)
class Published:
    """One row: a model and its values by our column's name, in the units of the paper (percent but AbsRel)."""

    model: str
    group: str
    values: Mapping[str, float]

    def cells(self, columns: Iterable[str]) -> list[str]:
        """The values of these columns in four significant digits, empty where there is none."""
        return [f"{self.values[name]:.4g}" if name in self.values else "" for name in columns]


COLUMNS: Mapping[str, str] = {
    "video/background_consistency": "Background consistency",
    "video/aesthetic_quality": "Aesthetic quality",
    "video/overall_consistency": "Overall consistency",
    "video/dynamic_degree": "Dynamic degree",
    "segmentation/miou": "mIoU",
    "segmentation/map": "mAP",
    "depth/absrel": "AbsRel",
    "depth/delta1": "δ < 1.25",
}
"""The paper's columns. Only VBench's are defined well enough for ours to stand under them: it does not say which
alignment, classes or AP the others are."""

_VBENCH = tuple(COLUMNS)[:4]


def _video(model: str, group: str, *values: float, **more: float) -> Published:
    named = {"absrel": "depth/absrel", "delta1": "depth/delta1"}
    return Published(
        model, group, dict(zip(_VBENCH, values, strict=True)) | {named[key]: value for key, value in more.items()}
    )


TABLE_1: tuple[Published, ...] = (
    _video("Kling 1.6", "text to video", 95.33, 60.48, 21.76, 47.05),
    _video("OpenSora 2", "text to video", 96.51, 61.51, 19.87, 34.48),
    _video("HunyuanVideo-13B", "text to video", 96.28, 53.45, 22.61, 41.18),
    _video("Wan2.1-14B", "text to video", 96.78, 63.66, 21.53, 34.31),
    _video("Aether", "text to video", 95.28, 48.25, 20.26, 37.32, absrel=0.025, delta1=97.95),
    _video("Full-DiT", "controllable generation", 95.58, 54.82, 20.12, 49.50),
    _video("VACE", "controllable generation", 93.61, 51.24, 17.52, 61.32),
    Published("DepthCrafter", "depth", {"depth/absrel": 0.065, "depth/delta1": 96.94}),
    Published("Geo4D", "depth", {"depth/absrel": 0.053, "depth/delta1": 97.94}),
    Published("SAMWISE", "segmentation", {"segmentation/miou": 62.21, "segmentation/map": 20.12}),
    Published("SeC", "segmentation", {"segmentation/miou": 65.52, "segmentation/map": 22.23}),
    _video("UnityVideo (control)", "unified", 96.04, 54.63, 21.86, 64.42),
    Published(
        "UnityVideo (unified)",
        "unified",
        dict(zip(COLUMNS, (97.44, 64.12, 23.57, 47.76, 68.82, 23.25, 0.022, 98.98), strict=True)),
    ),
)


def row_of(name: str, values: Mapping[str, float | None]) -> Published | None:
    """Our own row in the paper's units, of values (0 to 1) by VBench's columns; None where none was measured."""
    percent = {column: 100 * value for column in _VBENCH if (value := values.get(column)) is not None}
    return Published(f"{name} (this run)", "", percent) if percent else None


def rows_for(tasks: list[str]) -> list[Published]:
    """The published rows that say something about these tasks."""
    return [row for row in TABLE_1 if any(column.split("/")[0] in tasks for column in row.values)]
