"""A server of this process that answers as servers of files do: gone, refused, throttled, slow and cut off.

It has the layout of a hub too: `web.publish("OWNER/NAME", "cc-by-4.0", {"a.csv": …})` for huggingface_hub, which
`HF_ENDPOINT` points to it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "5e7c0de5" * 5


@dataclass
class Web:
    """Serves `files`; a path's first answers are those of `before`: a status, with headers, or "cut", "slow"."""

    files: dict[str, bytes] = field(default_factory=dict)
    before: dict[str, list[tuple[int | str, dict[str, str]]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    version: str = ""
    """The ETag of all files; of each its own where it is empty."""
    address: str = ""

    def count(self, path: str) -> int:
        return Counter(asked for asked, _ in self.asked)[path]

    def publish(self, repository: str, license: str, files: dict[str, bytes]) -> None:
        """Put a dataset on the hub."""
        siblings = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
        about = {"id": repository, "sha": COMMIT, "siblings": siblings, "cardData": {"license": license}}
        self.files[f"/api/datasets/{repository}"] = json.dumps(about).encode()
        self.files |= {self.published(repository, name): body for name, body in files.items()}

    @staticmethod
    def published(repository: str, name: str) -> str:
        """The path of a dataset's file."""
        return f"/datasets/{repository}/resolve/{COMMIT}/{name}"


@contextmanager
def serving() -> Iterator[Web]:
    """A server on a port of its own."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?blobs")[0]
            web.asked.append((self.path, dict(self.headers)))
            # A client asks for the head of what it is about to fetch: the fault is that of the fetching.
            faults = web.before.get(self.path) if self.command == "GET" else None
            what, headers = faults.pop(0) if faults else (200, {})
            body = web.files.get(path)
            if isinstance(what, int) and what != 200:
                self.reply(what, b"", headers)
            elif body is None:
                self.reply(404, b"no", {"X-Error-Code": "EntryNotFound"})
            else:
                kind = "text/html" if body.startswith(b"<") else "video/mp4"
                version = web.version or f'"{hashlib.sha1(body).hexdigest()}"'
                headers = {"Content-Type": kind, "ETag": version, "X-Repo-Commit": COMMIT, **headers}
                begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
                if begin and self.headers.get("If-Range", version) == version:
                    headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                    self.reply(206, body[begin:], headers, what)
                else:
                    self.reply(200, body, headers, what)

        def reply(self, status: int, body: bytes, headers: dict[str, str], how: int | str = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if how in ("cut", "slow"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if how == "slow":
                    time.sleep(0.6)
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    web.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
