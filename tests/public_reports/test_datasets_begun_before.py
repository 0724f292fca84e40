"""A dataset goes on as it was begun: no later version of the decoder mixes other clips into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from openuni.errors import CorruptDataError, PlanError
from openuni.shards import columns, layout, verify
from openuni.shards.layout import Manifest
from openuni_pipelines import BuildConfig, Execution, build
from openuni_pipelines.engine.build import make_plan
from openuni_pipelines.engine.recipe import stored_normalisation
from tests.openuni.video.films import telecined


def _config(root: Path, **options: int) -> BuildConfig:
    here = Execution(workers=0, min_free=0)
    return BuildConfig(
        source="folder", videos=root / "videos", out=root / "d", experts=("dis",), execution=here, **options
    )


def _rewritten(root: Path, fields: dict[str, object], rgb: str) -> None:
    """The manifest as a version that had only `fields` of the normalisation wrote it."""
    manifest = verify.manifest(root)
    changed = replace(
        manifest,
        configuration={**manifest.configuration, "normalisation": fields},
        columns={**manifest.columns, "rgb": rgb},
    )
    (root / layout.MANIFEST).write_bytes(layout.dump_checked(changed))


def _made(root: Path) -> list[tuple[bool, bool]]:
    """Of each clip: whether it was detelecined, whether only deinterlaced."""
    shards = range(verify.manifest(root).shards)
    rows = [row for shard in shards for row in columns.rows(root, shard, "rgb")]
    metas = [columns.read(root, row.shard, "rgb", row.key).note.meta for row in rows]
    return [(meta["detelecined"], meta["deinterlaced"]) for meta in metas]


def test_a_dataset_begun_before_pulldown_was_undone_is_extended_as_it_was_begun(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    telecined(tmp_path / "videos" / "a.mpg", 40)
    config = _config(tmp_path)
    make_plan(config)
    old = {"fps": 16.0, "short_side": 480, "max_frames": 81, "min_frames": 8}
    _rewritten(tmp_path / "d", old, "rgb-1-01234567")
    build(config)
    assert _made(tmp_path / "d") == [(False, True)]
    telecined(tmp_path / "videos" / "b.mpg", 40)
    build(config, extend=True)
    assert _made(tmp_path / "d") == [(False, True)] * 2
    assert verify.manifest(tmp_path / "d").columns["rgb"] == "rgb-1-01234567"
    with pytest.raises(PlanError, match=r"'crf': 18.*'crf': 20"):
        build(_config(tmp_path, crf=20))


def test_a_new_dataset_has_the_film_and_another_version_of_rgb(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    telecined(tmp_path / "videos" / "a.mpg", 40)
    build(_config(tmp_path))
    assert _made(tmp_path / "d") == [(True, False)]
    assert verify.manifest(tmp_path / "d").columns["rgb"].startswith("rgb-2-")


def test_a_normalisation_that_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(CorruptDataError, match=r"dataset\.json: no clip can be normalised by"):
        stored_normalisation(Manifest({"normalisation": {"fps": "\x1b"}}, {}, 1, 1, "0" * 64))
    with pytest.raises(CorruptDataError, match=r"dataset\.json: no clip can be normalised by"):
        stored_normalisation(Manifest({"normalisation": 5}, {}, 1, 1, "0" * 64))
