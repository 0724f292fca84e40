"""The server of `openuni view`: one page and its typed JSON, on the loopback interface, for the link's token.

No path of a URL reaches the file system: the page's own files are a fixed table, clips are looked up in the index.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

import numpy as np
from pydantic import ValidationError

from openuni.errors import OpenUniError
from openuni_pipelines.engine.viewing.catalogue import QUERY, Catalogue
from openuni_pipelines.engine.viewing.clips import ClipFacts, Clips, ColumnFacts, wheel
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.scores import Scores

_OURS = files(__package__) / "static"
PAGE = {
    "index.html": (_OURS / "index.html", "text/html; charset=utf-8"),
    "look.css": (files("unibench.report") / "look.css", "text/css; charset=utf-8"),
    "view.css": (_OURS / "view.css", "text/css; charset=utf-8"),
    "view.js": (_OURS / "view.js", "text/javascript; charset=utf-8"),
    "static.js": (_OURS / "static.js", "text/javascript; charset=utf-8"),
}
"""The page's own files: where they lie, and what they are."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPEN = {f"/{name}" for name in PAGE if name.endswith((".css", ".js"))}
_MOST_BODY = 64 << 10
_MOST_CARDS = 200
_MOST_FRAMES = 64
_LAST_SECONDS = 5.0
"""How long answers under way are waited for at the end."""
_IMAGE, _BYTES, _JSON = "image/jpeg", "application/octet-stream", "application/json"
Arguments = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Answer:
    kind: str
    body: bytes
    keeps: bool = False
    """Whether the browser may keep it: a thumbnail does not change while the server lives."""


class Viewer:
    """A dataset on `http://127.0.0.1:PORT/?token=…`. `others` are shown beside it, clip by clip; `scores` are
    what was said of them.

    `serve` answers until `close`, or the process ends. Raises OSError where the port is taken.
    """

    def __init__(
        self,
        clips: Clips,
        flags: Flags,
        others: Sequence[Clips] = (),
        scores: Scores | None = None,
        *,
        port: int = 0,
    ) -> None:
        self.clips, self.flags = clips, flags
        self.others = {other.source: other for other in others}
        self.scores = scores or Scores()
        self.catalogue = Catalogue(clips.data, self.scores.numbers)
        self.token = secrets.token_urlsafe(16)
        self._server = _Server(("127.0.0.1", port), self)

    @property
    def url(self) -> str:
        """The link to open."""
        return f"http://127.0.0.1:{self._server.server_port}/?token={self.token}"

    def link(self, key: str) -> str:
        """The link that opens one clip. Raises OpenUniError where there is none of this key."""
        self.clips.sample(key)
        return f"{self.url}#clip={quote(key)}"

    def serve(self) -> None:
        """Answer requests until `close`, or Ctrl-C, and the last ones to their end."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.end()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, arguments: Arguments) -> _Answer:
        """The answer to a GET. Raises OpenUniError, KeyError where an argument is missing, ValueError on a bad one."""
        name = "index.html" if path == "/" else path.removeprefix("/")
        if name in PAGE:
            file, kind = PAGE[name]
            return _Answer(kind, file.read_bytes())
        handle = self._handlers.get(path)
        if handle is None:
            raise LookupError(path)
        return handle(self, arguments)

    def _about(self, arguments: Arguments) -> _Answer:
        return _json(
            {
                "url": self.clips.data.url,
                "clips": len(self.catalogue),
                "columns": self.clips.data.columns,
                "others": list(self.others),
                "flags": self.flags.reasons,
                "begin": asdict(self.scores.begin),
                "compared": [asdict(row) for row in self.scores.compared],
                "runs": list(self.scores.runs),
                "remarks": list(self.scores.remarks),
            }
        )

    def _facets(self, arguments: Arguments) -> _Answer:
        return _json(self.catalogue.facets())

    def _progress(self, arguments: Arguments) -> _Answer:
        """Of reading the index."""
        return _json({"read": self.catalogue.read, "clips": len(self.catalogue)})

    def _cards(self, arguments: Arguments) -> _Answer:
        query = QUERY.validate_json(arguments["query"])
        numbers = self.catalogue.find(query, frozenset(self.flags.reasons))
        first, count = int(arguments["first"]), min(int(arguments["count"]), _MOST_CARDS)
        cards = self.catalogue.cards(numbers[max(first, 0) : max(first, 0) + max(count, 0)], query.sort)
        return _json({"total": len(numbers), "first": first, "cards": [asdict(card) for card in cards]})

    def _histogram(self, arguments: Arguments) -> _Answer:
        numbers = self.catalogue.find(QUERY.validate_json(arguments["query"]), frozenset(self.flags.reasons))
        return _json(self.catalogue.histogram(arguments["field"], numbers))

    def _neighbours(self, arguments: Arguments) -> _Answer:
        """The clips before and after one, in the order of a query."""
        query = QUERY.validate_json(arguments["query"])
        numbers = self.catalogue.find(query, frozenset(self.flags.reasons))
        keys = self.catalogue.keys(numbers)
        (found,) = np.nonzero(keys == arguments["key"])
        at = int(found[0]) if len(found) else None
        before = None if at in (None, 0) else str(keys[at - 1])
        after = None if at is None or at + 1 == len(keys) else str(keys[at + 1])
        return _json({"place": at, "total": len(keys), "before": before, "after": after})

    def facts(self, key: str) -> ClipFacts:
        """What is known of a clip, its scores, and the columns beside it. Raises OpenUniError where there is none."""
        facts = self.clips.facts(key)
        facts.scores.update(self.scores.of(key))
        for clips in self.others.values():
            facts.columns.extend(_columns_of(clips, key))
        return facts

    def _clip(self, arguments: Arguments) -> _Answer:
        key = arguments["key"]
        facts = self.facts(key)
        return _json({**asdict(facts), "flag": self.flags.reasons.get(key, "")})

    def _thumbnail(self, arguments: Arguments) -> _Answer:
        return _Answer(_IMAGE, self.clips.thumbnail(arguments["key"]), keeps=True)

    def _frame(self, arguments: Arguments) -> _Answer:
        clips, key, column = self._place(arguments)
        return _Answer(_IMAGE, clips.frame(key, column, int(arguments["frame"])))

    def _frames(self, arguments: Arguments) -> _Answer:
        clips, key, column = self._place(arguments)
        first, count = int(arguments["first"]), int(arguments["count"])
        if first < 0 or not 0 < count <= _MOST_FRAMES:
            raise ValueError(f"{count} frames from {first}")
        # The page and this server keep them; a third copy, on the browser's disk, would cost time and room.
        return _Answer(_BYTES, clips.run(key, column, first, count))

    def _readings(self, arguments: Arguments) -> _Answer:
        clips, key, column = self._place(arguments)
        frame, y, x = (int(arguments[name]) for name in ("frame", "y", "x"))
        return _json([asdict(reading) for reading in clips.readings(key, column, frame, y, x)])

    def _people(self, arguments: Arguments) -> _Answer:
        clips, key, _ = self._place(arguments)
        return _json(clips.people(key))

    def _arrows(self, arguments: Arguments) -> _Answer:
        clips, key, column = self._place(arguments)
        return _json(clips.arrows(key, column, int(arguments["frame"])))

    def _legend(self, arguments: Arguments) -> _Answer:
        clips, key, column = self._place(arguments)
        return _json({"text": clips.legend(key, column)})

    def _wheel(self, arguments: Arguments) -> _Answer:
        return _Answer(_IMAGE, wheel(), keeps=True)

    def _camera(self, arguments: Arguments) -> _Answer:
        """Of the clip, or of the truth beside it."""
        key = arguments["key"]
        paths = (clips.camera(key) for clips in (self.clips, *self.others.values()) if key in clips.data)
        return _json({"path": next(filter(None, paths), [])})

    def _place(self, arguments: Arguments) -> tuple[Clips, str, str]:
        source = arguments.get("source", "")
        if source and source not in self.others:
            raise OpenUniError(f"there is no dataset {source!r} beside this one")
        return self.others.get(source, self.clips), arguments["key"], arguments["column"]

    _handlers: ClassVar[Mapping[str, Callable[[Viewer, Arguments], _Answer]]] = {
        "/api/about": _about,
        "/api/facets": _facets,
        "/api/progress": _progress,
        "/api/cards": _cards,
        "/api/histogram": _histogram,
        "/api/neighbours": _neighbours,
        "/api/clip": _clip,
        "/api/thumbnail": _thumbnail,
        "/api/frame": _frame,
        "/api/frames": _frames,
        "/api/readings": _readings,
        "/api/people": _people,
        "/api/arrows": _arrows,
        "/api/legend": _legend,
        "/api/camera": _camera,
        "/api/wheel": _wheel,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], viewer: Viewer) -> None:
        super().__init__(address, _Handler)
        self.viewer = viewer
        self._answers, self._has_ended, self._changed = 0, False, threading.Condition()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around what an answer takes. Raises ConnectionAbortedError where no more are given."""
        with self._changed:
            if self._has_ended:
                raise ConnectionAbortedError
            self._answers += 1
        try:
            yield
        finally:
            with self._changed:
                self._answers -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Wait for answers under way: a thread in OpenCV or DuckDB when the interpreter ends aborts the process."""
        with self._changed:
            self._has_ended = True
            self._changed.wait_for(lambda: not self._answers, _LAST_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "openuni", ""
    timeout = 60  # seconds that a silent connection is kept
    disable_nagle_algorithm = True  # else a short body waits until its head is acknowledged: up to 40 ms

    def handle_one_request(self) -> None:
        """Without a traceback on the terminal when somebody closes a tab."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        """The page, or JSON and frames for it."""
        url = urlsplit(self.path)
        arguments = dict(parse_qsl(url.query, keep_blank_values=True))
        # The page's own script and style carry no secret, and cannot name a token in their address.
        if url.path not in _OPEN and not self._is_allowed(arguments):
            return
        self._answer(lambda: self.server.viewer.answer(url.path, arguments))

    def do_POST(self) -> None:
        """A flag: `{"key": …, "reason": …}`."""
        if urlsplit(self.path).path != "/api/flag" or not self._is_allowed({}):
            self._say(HTTPStatus.NOT_FOUND, "there is no such address")
            return
        self._answer(self._flag)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""

    def _flag(self) -> _Answer:
        size = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,6}", size) or int(size) > _MOST_BODY:
            raise ValueError("the length of the body")
        flag = json.loads(self.rfile.read(int(size)))
        viewer = self.server.viewer
        viewer.clips.sample(str(flag["key"]))
        viewer.flags.set(str(flag["key"]), str(flag["reason"]))
        return _json({"flags": viewer.flags.reasons})

    def _is_allowed(self, arguments: Arguments) -> bool:
        """Whether the request names this server and its token: another site's page can do neither."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        token = self.headers.get("X-Token") or arguments.get("token", "")
        if host in ("127.0.0.1", "localhost") and hmac.compare_digest(
            token.encode(), self.server.viewer.token.encode()
        ):
            return True
        self._say(HTTPStatus.FORBIDDEN, "open the link that `openuni view` printed: its token is missing or old")
        return False

    def _answer(self, ask: Callable[[], _Answer]) -> None:
        try:
            with self.server.answering():
                answer = ask()
        except ConnectionAbortedError:
            self.close_connection = True
        except LookupError as error:
            self._say(HTTPStatus.NOT_FOUND, f"there is no {error.args[0] if error.args else 'such thing'}")
        except OpenUniError as error:
            self._say(HTTPStatus.CONFLICT, str(error))
        except (ValueError, ValidationError) as error:
            self._say(HTTPStatus.BAD_REQUEST, f"this request makes no sense: {str(error)[:400]}")
        except Exception as error:  # noqa: BLE001  whatever a stranger's clip provokes concerns this answer only
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {str(error)[:400]}")
        else:
            self._send(HTTPStatus.OK, answer)

    def _say(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True  # a body that was not read is not the next request
        self._send(status, _Answer(_JSON, json.dumps({"error": sentence}).encode()))

    def _send(self, status: HTTPStatus, answer: _Answer) -> None:
        try:
            self._write(status, answer)
        except ConnectionError:  # the page has gone on to another clip
            self.close_connection = True

    def _write(self, status: HTTPStatus, answer: _Answer) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "private, max-age=3600" if answer.keeps else "no-store"),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")  # else the browser may ask its next question here, and lose it
        self.end_headers()
        self.wfile.write(answer.body)


def open_in_background(viewer: Viewer) -> threading.Thread:
    """Serve in a thread that ends with the process: for notebooks and tests."""
    thread = threading.Thread(target=viewer.serve, name="openuni view", daemon=True)
    thread.start()
    return thread


def _columns_of(clips: Clips, key: str) -> list[ColumnFacts]:
    """What another dataset has of a clip: its columns, or that it lacks the clip."""
    if key not in clips.data:
        return [ColumnFacts(name, clips.source, False, "no such clip there", "", None) for name in clips.data.columns]
    return list(clips.columns(key))


def _json(value: Any) -> _Answer:
    return _Answer(_JSON, json.dumps(finite(value), ensure_ascii=False, allow_nan=False).encode())


def finite(value: Any) -> Any:
    """A value, or a dataclass of values, as JSON writes them. JSON has no NaN: None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if is_dataclass(value):
        return {field.name: finite(getattr(value, field.name)) for field in fields(value)}
    return value
