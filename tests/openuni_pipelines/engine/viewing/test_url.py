"""A dataset at a URL is looked at as one in a folder is: in a bucket and on a hub, on servers of this process."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest

import openuni
from openuni.shards import catalog, facts
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import open_source
from tests.openuni_pipelines.engine.viewing.bars import get
from tests.s3 import BUCKET, Server


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


def test_facts_of_a_url_are_read_once_and_only_for_that_url(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(facts, "near_folder", lambda: tmp_path / "near")
    root = tmp_path / "data"
    shutil.copytree(dataset, root)
    catalog.write(root, "run")
    files = MemoryFileSystem()
    for name in ("fact-a", "fact-b"):
        files.put(str(root), f"/{name}", recursive=True)
    made: list[int] = []
    for _ in range(2):
        with facts.table(openuni.open("memory://fact-a"), made.append) as path:
            keys = pq.read_table(path)["key"].to_pylist()
    assert keys == ["clip-0", "clip-1", "clip-2", "clip-3"]
    assert made == [4]  # the second time they were there
    assert path.parent == tmp_path / "near"
    with facts.there(openuni.open("memory://fact-b").store) as other:
        assert other is None  # a stranger's copy of a catalog says nothing of another place, nor the other way
    monkeypatch.setattr(facts, "MOST_NEAR", 1)
    with facts.table(openuni.open("memory://fact-b"), made.append):
        assert made == [4, 4]
    assert len(list((tmp_path / "near").iterdir())) == 1  # the longest unused is gone
    for name in ("fact-a", "fact-b"):
        files.rm(f"/{name}", recursive=True)


COMMIT = "0123456789" * 4
TOKEN = "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """What of the hub's web API reading a private dataset takes: `me/data` at one commit, for one token."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if re.fullmatch(r"/api/datasets/me/data(/revision/\w+)?", path):
            return self._json({"id": "me/data", "sha": COMMIT, "siblings": [], "private": True})
        if found := re.fullmatch(r"/api/datasets/me/data/tree/\w+(?:/(.*))?", path):
            folder = self.server.root / (found[1] or "")
            if not folder.is_dir():
                return self._say(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return self._json([self._entry(one) for one in sorted(folder.iterdir())])
        if found := re.fullmatch(r"/datasets/me/data/resolve/\w+/(.+)", path):
            return self._file(self.server.root / found[1])
        return self._say(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = json.loads(asked)["paths"] if asked.startswith("{") else re.findall(r"paths=([^&]+)", asked)
        files = [self.server.root / unquote(one) for one in paths]
        self._json([self._entry(one) for one in files if one.exists()])

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""

    def _entry(self, path: Path) -> dict[str, Any]:
        kind = "directory" if path.is_dir() else "file"
        place = path.relative_to(self.server.root).as_posix()
        return {"type": kind, "path": place, "oid": COMMIT, "size": 0 if path.is_dir() else path.stat().st_size}

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._say(404, b"", {"X-Error-Code": "EntryNotFound"})
        data, part = path.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return self._say(200, data, {"ETag": COMMIT, "X-Repo-Commit": COMMIT})
        first, last = int(part[1]), min(int(part[2]), len(data) - 1)
        return self._say(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._say(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(dataset: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    server = Hub(dataset)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def export(hub: Hub, token: str, name: str, out: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the package reads HF_ENDPOINT when it is imported."""
    command = [sys.executable, "-m", "openuni_pipelines", "view", f"hf://datasets/{name}", "--export", str(out)]
    told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = os.environ | told
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_private_dataset_of_the_hub_opens_with_its_token(hub: Hub, tmp_path: Path) -> None:
    done = export(hub, TOKEN, "me/data", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    stored = np.load(io.BytesIO(gzip.decompress((tmp_path / "out/data/clip-1/0.depth.5.values").read_bytes())))
    assert np.array_equal(stored[..., 0], openuni.open(hub.root)["clip-1"].depth.values[5], equal_nan=True)
    hidden = export(hub, "hf_of_another", "me/data", tmp_path / "hidden")
    assert hidden.returncode != 0
    assert "hf://datasets/me/data" in hidden.stderr
    assert "Traceback" not in hidden.stderr
    assert not (tmp_path / "hidden").exists()
