"""What each video came to, a JSON line each: a rerun asks only for what is open."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from openuni.errors import OpenUniError


class Outcome(Enum):
    """What asking for a video came to."""

    GOT = "got"
    GONE = "gone"
    """Removed, or never there."""
    PRIVATE = "private"
    """For those who log in."""
    THROTTLED = "throttled"
    """The server wants fewer requests: asked for again by the next run."""
    BLOCKED = "blocked"
    """Refused to this machine or account: by country, age, payment, or plainly."""
    ERROR = "error"
    """Anything else, such as a connection that broke: asked for again by the next run."""


_FINAL = {Outcome.GOT, Outcome.GONE}
_ASK_WITH_COOKIES = {Outcome.PRIVATE, Outcome.BLOCKED}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to. `file` is the whole file where it is GOT, `retry_after` seconds the server named."""

    outcome: Outcome
    why: str = ""
    file: Path | None = None
    retry_after: float | None = None
    asked: bool = True
    """False where no request was made, because the server throttles."""


class Journal:
    """Outcomes by name; the last one counts. Kept in memory: about 150 bytes a video that is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed: dict[str, tuple[Outcome, bool]] = {}
        self._file: BinaryIO = path.open("a+b")
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if line.endswith(b"\n"):
                self._read(line, number)
                whole += len(line)
        self._file.truncate(whole)  # without what a killed run left unfinished: that video is asked for again

    def settled(self, name: str, has_cookies: bool) -> Outcome | None:
        """How the video ended in an earlier run; None where it is open. What is GOT must still be there to be so.

        Private and blocked ones are open again for the first run with cookies.
        """
        outcome, had_cookies = self._closed.get(name, (None, False))
        if outcome is Outcome.GOT or (outcome in _ASK_WITH_COOKIES and has_cookies and not had_cookies):
            return None
        return outcome

    def write(self, name: str, url: str, answer: Answer, has_cookies: bool, size: int) -> None:
        """Record an outcome; it is on its way to the disk when this returns."""
        entry = {
            "name": name,
            "outcome": answer.outcome.value,
            "why": answer.why,
            "url": url,
            "cookies": has_cookies,
            "bytes": size,
            "time": int(time.time()),
        }
        self._file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _read(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            name, outcome, cookies = str(entry["name"]), Outcome(entry["outcome"]), bool(entry["cookies"])
        except (ValueError, KeyError, TypeError) as error:
            raise OpenUniError(
                f"{self._path}, line {number}, is no outcome of a download; remove that line, or the file to ask for "
                "every video again"
            ) from error
        if outcome in _FINAL or outcome in _ASK_WITH_COOKIES:
            self._closed[name] = (outcome, cookies)
        else:
            self._closed.pop(name, None)
