"""A dataset at a URL is looked at as one in a folder is: over S3 on a server of this process."""

from __future__ import annotations

from pathlib import Path

from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import open_source
from tests.openuni_pipelines.engine.viewing.test_view import dataset, get
from tests.s3 import BUCKET, Server

__all__ = ["dataset"]


def look(url: str, flags: Path) -> None:
    viewer = Viewer(Clips(open_source(url)), Flags(flags))
    open_in_background(viewer)
    found = get(viewer, "/api/cards", query="{}", first=0, count=9)[1]["cards"]
    assert [card["key"] for card in found] == ["clip-0", "clip-1", "clip-2", "clip-3"]
    assert get(viewer, "/api/frame", key="clip-1", column="depth", frame=3)[0] == 200
    read = get(viewer, "/api/readings", key="clip-1", column="depth", frame=5, y=3, x=0)[1]
    assert (read[0]["value"], read[0]["unit"]) == (2.0, "m")
    viewer.close()


def test_a_url_of_s3_opens(dataset: Path, tmp_path: Path, s3: Server) -> None:
    store = ObjectStore(f"s3://{BUCKET}/shelf/data")
    for path in sorted(path for path in dataset.rglob("*") if path.is_file()):
        store.put(path.relative_to(dataset).as_posix(), path, "copy")
    look(f"s3://{BUCKET}/shelf/data", tmp_path / "flags.jsonl")


def test_a_url_of_memory_opens(dataset: Path, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem().put(str(dataset), "/viewed", recursive=True)
    look("memory://viewed", tmp_path / "flags.jsonl")
    MemoryFileSystem().rm("/viewed", recursive=True)
