"""An S3 server of this process (moto), behind one lock: moto checks and writes in two steps, S3 in one.

It can be told to misbehave: `server.fault = "503"`, `"cut"` (the answer is lost after the work is done), `"slow"`,
`"refuse"` (403), `"skew"` (403: the client's clock is wrong), `"overwrite"` (conditions are ignored), for requests
whose path holds `server.where`, `server.times`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

BUCKET = "openuni-test"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
               "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
_REFUSALS = {
    "503": ("503 Slow Down", "SlowDown"),
    "refuse": ("403 Forbidden", "AccessDenied"),
    "skew": ("403 Forbidden", "RequestTimeTooSkewed"),
}


class Server:
    """`url` of the server; every request's method and path in `asked`."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.fault = self.where = ""
        self.times = 0
        self._application = application
        self._lock = threading.Lock()

    def misbehave(self, fault: str, where: str, times: int) -> None:
        self.fault, self.where, self.times = fault, where, times

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        with self._lock:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.asked.append((method, path))
            hit = self.times > 0 and self.where in f"{method} {path}"
            self.times -= hit
            if hit and self.fault in _REFUSALS:
                status, code = _REFUSALS[self.fault]
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
            if hit and self.fault == "slow":
                time.sleep(1.0)
            if hit and self.fault == "overwrite":
                environ.pop("HTTP_IF_NONE_MATCH", None)
            answer = self._application(environ, start)
            if hit and self.fault == "cut":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError("the answer is lost")
            return answer


@contextmanager
def serving() -> Iterator[Server]:
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            return

    server = Server(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, server, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        urlopen(Request(f"{server.url}/moto-api/reset", method="POST"))
        boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket=BUCKET)
        server.asked.clear()
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
