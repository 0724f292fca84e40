"""`webvid`: CSV files in the style of WebVid (Bain et al., ICCV 2021): `videoid,name`, and often `duration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openuni.choosing import text
from openuni.sources.base import Request
from openuni.sources.original import as_json
from openuni.sources.rows import RowSource, csv_files, need, one_table
from openuni.sources.selection import Fields, Relation

_DURATION = "regexp_extract(duration, '^PT(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9.]+)S)?$', ['h', 'm', 's'])"
"""Of ISO 8601: `PT00H00M17S`."""


@dataclass(frozen=True)
class WebVid(RowSource):
    """Keyed by `videoid`, which is the name of the file too; `name` is the caption."""

    name: ClassVar[str] = "webvid"
    has_urls: ClassVar[bool] = True

    def rows(self, request: Request, scratch: Path) -> Relation:
        return csv_files(one_table(self.name, request), scratch, request.metadata or Path(), {})

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        need(columns, ("videoid", "name"), rows.file, "a WebVid table")
        parts = ((3600, "h"), (60, "m"), (1, "s"))
        seconds = " + ".join(f"{of} * coalesce(try_cast({_DURATION}.{part} AS DOUBLE), 0)" for of, part in parts)
        return Fields(
            id="videoid",
            video="videoid",
            video_id="videoid",
            url="contentUrl" if "contentUrl" in columns else "NULL",
            duration=f"nullif({seconds}, 0)" if "duration" in columns else "NULL",
            caption="name",
            license=text(self.license),
            source_fields=as_json(columns, ("videoid", "name")),
        )
