"""One video file by HTTP: resumed, bounded, whole."""

from __future__ import annotations

import email.utils
import http.client
import http.cookiejar
import math
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.sources.download.journal import Answer, Outcome
from openuni.storage import DISK_ERRORS, DOCUMENT, open_regular

SILENT_SECONDS = 30.0
"""A connection without a byte for so long is broken."""
SLOWEST = 1024
"""Bytes a second, on average since the first half minute; a slower connection is closed."""
_CHUNK = 1 << 18
_IN_ADDRESSES = ":/?#[]@!$&'()*+,;=%~"
_OUTCOMES = {401: Outcome.PRIVATE, 403: Outcome.BLOCKED, 404: Outcome.GONE, 410: Outcome.GONE, 429: Outcome.THROTTLED,
             451: Outcome.BLOCKED, 503: Outcome.THROTTLED}  # fmt: skip


class FileClient:
    """Downloads files from http:// and https:// addresses, no others, redirects included. Shared by threads."""

    def __init__(self, cookies: Path | None, largest: int, stopping: threading.Event) -> None:
        self._largest, self._stopping = largest, stopping
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPCookieProcessor(read_cookies(cookies)),
        ):
            self._opener.add_handler(handler)

    def fetch(self, url: str, scratch: Path) -> Answer:
        """Go on with, or begin, the file in the folder `scratch`; what came before a connection broke stays there."""
        part, mark = scratch / "video.part", scratch / "version"
        begin = part.stat().st_size if part.exists() and mark.exists() else 0
        headers = {"User-Agent": "openuni", "Accept-Encoding": "identity"}
        if begin:
            # Only the same version of a file goes on; of another one the whole is sent.
            headers |= {"Range": f"bytes={begin}-", "If-Range": mark.read_text()}
        try:
            # Tables also hold addresses as people read them, with spaces and letters of any script.
            request = urllib.request.Request(urllib.parse.quote(url, safe=_IN_ADDRESSES), headers=headers)
            with self._opener.open(request, timeout=SILENT_SECONDS) as response:
                return self._receive(response, part, mark, begin)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, part)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            return Answer(Outcome.ERROR, f"{reason}" or type(error).__name__)

    def _refused(self, error: urllib.error.HTTPError, part: Path) -> Answer:
        if error.code == 416:  # what is here is as long as the file, or longer: begin again
            part.unlink(missing_ok=True)
        outcome = _OUTCOMES.get(error.code, Outcome.ERROR)
        return Answer(outcome, f"HTTP {error.code}", retry_after=_seconds(error.headers.get("Retry-After")))

    def _receive(self, response: http.client.HTTPResponse, part: Path, mark: Path, begin: int) -> Answer:
        kind = response.headers.get_content_type()
        if kind.startswith("text/"):
            return Answer(Outcome.ERROR, f"the answer is {kind}, no video")
        if response.status != 206:
            begin = 0
        elif not (response.headers.get("Content-Range") or "").startswith(f"bytes {begin}-"):
            part.unlink(missing_ok=True)
            return Answer(Outcome.ERROR, "the server sent another part than it was asked for")
        length = response.headers.get("Content-Length")
        whole = begin + int(length) if length else None
        if whole is not None and whole > self._largest:
            return Answer(Outcome.ERROR, f"larger than {self._largest:,} bytes")
        _remember(response, mark)
        size = self._copy(response, part, begin)
        if size > self._largest:
            part.unlink()
            return Answer(Outcome.ERROR, f"larger than {self._largest:,} bytes")
        if whole is not None and size != whole:
            return Answer(Outcome.ERROR, f"cut off after {size:,} of {whole:,} bytes")
        return Answer(Outcome.GOT, file=part)

    def _copy(self, response: http.client.HTTPResponse, part: Path, size: int) -> int:
        """Write what comes behind the first `size` bytes; the bytes there are then."""
        first, began = size, time.monotonic()
        with part.open("r+b" if size else "wb") as file:
            file.truncate(size)
            file.seek(size)
            while size <= self._largest and (chunk := response.read1(_CHUNK)):
                file.write(chunk)
                size += len(chunk)
                seconds = time.monotonic() - began
                if self._stopping.is_set():
                    raise ConnectionAbortedError("stopped")
                if seconds > SILENT_SECONDS and size - first < SLOWEST * seconds:
                    raise ConnectionAbortedError(f"slower than {SLOWEST} bytes a second")
        return size


def read_cookies(path: Path | None) -> http.cookiejar.CookieJar:
    """Cookies in the format of Netscape's `cookies.txt`. Raises OpenUniError for a file of another kind."""
    jar = http.cookiejar.MozillaCookieJar()
    if path is not None:
        with open_regular(path) as file:
            if file.size > DOCUMENT:
                raise OpenUniError(f"{path} has {file.size:,} bytes, and is no cookies.txt; name the browser's export")
        try:
            jar.load(str(path), ignore_discard=True, ignore_expires=True)
        except (http.cookiejar.LoadError, UnicodeDecodeError) as error:
            raise OpenUniError(
                f"{path} is no cookies.txt; export the browser's cookies in Netscape's format: {error}"
            ) from error
    for cookie in jar:
        if cookie.expires == 0:  # how browsers export one that lasts for the session
            cookie.expires, cookie.discard = None, True
    return jar


def _remember(response: http.client.HTTPResponse, mark: Path) -> None:
    """Keep what tells this version of the file from others; without it nothing is resumed."""
    etag = response.headers.get("ETag") or ""
    version = response.headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag
    if version:
        mark.write_text(version)
    else:
        mark.unlink(missing_ok=True)


def _seconds(retry_after: str | None) -> float | None:
    """Of `Retry-After`: seconds, or a date.

    Example:
        >>> _seconds("120")
        120.0
    """
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
