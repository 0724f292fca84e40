"""`openvid1m`: the CSV of OpenVid-1M (Nan et al., 2024), a row a clip that is a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openuni.choosing import quoted, text
from openuni.sources.base import Request
from openuni.sources.hub import Hub
from openuni.sources.original import as_json
from openuni.sources.rows import RowSource, csv_files, need, one_table
from openuni.sources.selection import Fields, Relation

SCORES = ("aesthetic score", "motion score", "temporal consistency score")
_TYPES = {**dict.fromkeys((*SCORES, "fps", "seconds"), "DOUBLE"), "frame": "BIGINT"}


@dataclass(frozen=True)
class OpenVid1M(RowSource):
    """Keyed by the file's name without its suffix; scores as published, with `_` for the spaces in their names."""

    name: ClassVar[str] = "openvid1m"
    license: ClassVar[str] = "OpenVid-1M: CC-BY-4.0 (the clips' own terms differ)"
    hub: ClassVar[Hub | None] = Hub("nkp37/OpenVid-1M", "data/train/OpenVid-1M.csv")

    def rows(self, request: Request, scratch: Path) -> Relation:
        return csv_files(one_table(self.name, request), scratch, request.metadata or Path(), _TYPES)

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        need(columns, ("video", "caption", *SCORES), rows.file, "an OpenVid-1M table")
        return Fields(
            id=r"regexp_replace(video, '\.[^.]*$', '')",
            video="video",
            video_id=r"regexp_replace(video, '\.[^.]*$', '')",
            duration="seconds" if "seconds" in columns else "NULL",
            caption="caption",
            license=text(self.license),
            scores={score.replace(" ", "_"): quoted(score) for score in SCORES},
            source_fields=as_json(columns, ("video", "caption", *SCORES)),
        )
