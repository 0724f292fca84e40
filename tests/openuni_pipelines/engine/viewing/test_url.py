"""A dataset at a URL is looked at as one in a folder is: over S3 on a server of this process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import open_source
from tests.openuni_pipelines.engine.viewing.test_view import dataset, get

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


def test_a_url_of_s3_opens(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    application = server_of.DomainDispatcherApplication(server_of.create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir("shelf")
    files.put(str(dataset), "shelf/data", recursive=True)
    look("s3://shelf/data", tmp_path / "flags.jsonl")
    server.shutdown()


def test_a_url_of_memory_opens(dataset: Path, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem().put(str(dataset), "/viewed", recursive=True)
    look("memory://viewed", tmp_path / "flags.jsonl")
    MemoryFileSystem().rm("/viewed", recursive=True)
