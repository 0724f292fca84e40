"""A hub of this process that takes datasets: what huggingface_hub asks of it to create, upload (by LFS) and commit.

It can be told to misbehave: `hub.misbehave("503", "POST /api/datasets/me/d/commit", 2)`, or `"cut"`: the answer is lost
after the work is done.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

COMMIT = "5e7c0de5" * 5
LARGE = (".tar", ".parquet")


@dataclass
class Hub:
    """Repositories by name, each with its files, and what was asked in order."""

    url: str = ""
    token: str = "hf_good"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    commits: list[list[str]] = field(default_factory=list)
    says: dict[str, int] = field(default_factory=dict)
    """Sizes that it states of files, where these are not the true ones."""
    fault: str = ""
    where: str = ""
    times: int = 0

    def misbehave(self, fault: str, where: str, times: int) -> None:
        self.fault, self.where, self.times = fault, where, times

    def count(self, what: str) -> int:
        return sum(what in asked for asked in self.asked)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a port of its own."""
    hub, lock = Hub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None: ...

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            path = path.replace("/resolve/" + COMMIT, "/resolve/main").replace("/tree/" + COMMIT, "/tree/main")
            with lock:
                hub.asked.append(f"{self.command} {path}")
                hit = hub.times > 0 and hub.where in f"{self.command} {path}"
                hub.times -= hit
                if hit and hub.fault == "503":
                    self.answer(503, b"busy")
                    return
                is_allowed = path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {hub.token}"
                status, data, headers = (
                    _answer(hub, path, urlsplit(self.path).query, body) if is_allowed else (401, b"", {})
                )
            if hit and hub.fault == "cut":
                self.close_connection = True
                return
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if part is None or status != 200:
                self.answer(status, data, headers)
                return
            first, last = int(part[1]), min(int(part[2]), len(data) - 1)
            self.answer(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def in_use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process talks to, and does not wait for long."""
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("openuni_pipelines.engine.on_hub._WAIT", 0.01)
        yield served


def _answer(hub: Hub, path: str, query: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    def said(value: Any) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}

    if path.startswith("/lfs/"):
        oid = path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, b"other bytes", {}
        hub.objects[oid] = body
        return 200, b"", {}
    if path == "/api/repos/create":
        told = json.loads(body)
        name = f"{told['organization']}/{told['name']}"
        hub.repositories.setdefault(name, {".gitattributes": b"*.tar filter=lfs\n"})
        return said({"url": f"{hub.url}/datasets/{name}", "id": name})
    if path == "/api/validate-yaml":
        return said({"errors": [], "warnings": []})
    name = "/".join(path.removeprefix("/api").split("/")[2:4]).removesuffix(".git")
    files = hub.repositories.get(name)
    if files is None:
        return 404, b"", {"X-Error-Code": "RepoNotFound"}
    if "/tree/" in path:
        return said(_tree(hub, files, path.partition("/tree/main")[2].strip("/"), is_recursive="recursive" in query))
    if "/paths-info/" in path:
        return said(
            [one for name in _paths(body) for one in _tree(hub, files, name.rpartition("/")[0]) if one["path"] == name]
        )
    if path == f"/api/datasets/{name}":
        stated = {file: hub.says.get(file, len(data)) for file, data in files.items()}
        siblings = [{"rfilename": file, "size": size} for file, size in stated.items()]
        return said({"id": name, "sha": COMMIT, "siblings": siblings})
    if "/preupload/" in path:
        modes = [
            {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
             "shouldIgnore": False}
            for one in json.loads(body)["files"]
        ]  # fmt: skip
        return said({"files": modes})
    if path.endswith("/objects/batch"):
        return said({"transfer": "basic", "objects": [_upload(hub, one) for one in json.loads(body)["objects"]]})
    if "/commit/" in path:
        return _commit(hub, name, [json.loads(line) for line in body.splitlines()])
    file = path.partition("/resolve/main/")[2]
    if file not in files:
        return 404, b"", {"X-Error-Code": "EntryNotFound"}
    return 200, files[file], {"ETag": f'"{_git(files[file])}"', "X-Repo-Commit": COMMIT}


def _paths(body: bytes) -> list[str]:
    text = body.decode()
    return json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]


def _tree(hub: Hub, files: dict[str, bytes], folder: str, *, is_recursive: bool = False) -> list[dict[str, Any]]:
    """The entries of a folder, or everything below it."""
    below = {name: data for name, data in sorted(files.items()) if name.startswith(f"{folder}/" if folder else "")}
    found, deep = [], set()
    for name, data in below.items():
        inner = name.removeprefix(f"{folder}/" if folder else "").partition("/")
        if is_recursive or not inner[1]:
            found.append(_entry(name, data, hub.says.get(name, len(data))))
        else:
            deep.add(f"{folder}/{inner[0]}".strip("/"))
    return found + [{"type": "directory", "path": name, "oid": _git(b""), "size": 0} for name in sorted(deep)]


def _commit(hub: Hub, name: str, lines: list[dict[str, Any]]) -> tuple[int, bytes, dict[str, str]]:
    changed = dict(hub.repositories[name])
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            changed[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                return 400, b"an object is missing", {}
            changed[value["path"]] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            del changed[value["path"]]
    hub.repositories[name] = changed
    hub.commits.append([line["value"]["path"] for line in lines if line["key"] != "header"])
    told = {"commitUrl": f"{hub.url}/datasets/{name}/commit/1", "commitOid": COMMIT}
    return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}


def _upload(hub: Hub, one: dict[str, Any]) -> dict[str, Any]:
    if one["oid"] in hub.objects:
        return {"oid": one["oid"], "size": one["size"]}
    return {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}


def _entry(file: str, data: bytes, size: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": size, "oid": _git(data)}
    if file.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
    return entry


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
