"""The video that a page shows (YouTube and others), by yt-dlp: its picture alone, for a dataset has no sound."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from typing import Any

from openuni.errors import OpenUniError
from openuni.sources.download.files import SILENT_SECONDS, read_cookies
from openuni.sources.download.journal import Answer, Outcome
from openuni.storage import DISK_ERRORS

# What yt-dlp says, in the order in which it is asked: a wall for robots also says "sign in".
_SAID = (
    (Outcome.THROTTLED, r"not a bot|HTTP Error 429|HTTP Error 503|too many requests|rate.?limit|try again later"),
    (Outcome.PRIVATE, r"private video|video is private|HTTP Error 401|login required|log in to"),
    (
        Outcome.BLOCKED,
        r"in your country|your location|geo.?restrict|confirm your age|age.?restrict|members.only|DRM|payment"
        r"|purchase|HTTP Error 403|HTTP Error 451|blocked",
    ),
    (
        Outcome.GONE,
        r"HTTP Error 404|HTTP Error 410|video unavailable|has been removed|removed by|been terminated|not available"
        r"|no longer available|does not exist|account .*closed",
    ),
)


class PageClient:
    """Asks yt-dlp, without its configuration files or cache. Shared by threads."""

    def __init__(self, cookies: Path | None, largest: int, height: int, stopping: threading.Event) -> None:
        try:
            import yt_dlp  # noqa: F401
        except ImportError as error:
            raise OpenUniError(
                "these rows name pages, and yt-dlp is not installed; run: pip install 'openuni[download]'"
            ) from error
        read_cookies(cookies)
        # Its text: yt-dlp writes the file that it is given anew.
        self._cookies = cookies.read_text() if cookies else None
        self._largest, self._height, self._stopping = largest, height, stopping

    def fetch(self, url: str, scratch: Path) -> Answer:
        """Go on with, or begin, the page's video in the folder `scratch`."""
        import yt_dlp

        too_large = False

        def watch(progress: dict[str, Any]) -> None:
            nonlocal too_large
            sizes = (progress.get("downloaded_bytes"), progress.get("total_bytes"))
            too_large = too_large or any(size is not None and size > self._largest for size in sizes)
            if too_large or self._stopping.is_set():
                raise yt_dlp.utils.DownloadCancelled

        try:
            with yt_dlp.YoutubeDL(self._options(scratch, watch)) as client:
                client.extract_info(url)
        except yt_dlp.utils.DownloadCancelled:
            return Answer(Outcome.ERROR, f"larger than {self._largest:,} bytes" if too_large else "stopped")
        except yt_dlp.utils.YoutubeDLError as error:
            return classify(str(error))
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            return Answer(Outcome.ERROR, str(error))
        found = [file for file in scratch.glob("page.*") if not re.search(r"\.(part(-Frag\d+)?|ytdl|temp)$", file.name)]
        if len(found) != 1:
            return Answer(Outcome.ERROR, f"nothing that is less than {self._largest:,} bytes and not live")
        return Answer(Outcome.GOT, file=found[0])

    def _options(self, scratch: Path, watch: Any) -> dict[str, Any]:
        small = f"[height<=?{self._height}]"
        return {
            # One stream: two would need the ffmpeg program to become one file.
            "format": f"bv*[ext=mp4]{small}/bv*{small}/wv*/b",
            "outtmpl": {"default": str(scratch / "page").replace("%", "%%") + ".%(ext)s"},
            "cookiefile": None if self._cookies is None else io.StringIO(self._cookies),
            "max_filesize": self._largest,
            "progress_hooks": [watch],
            "match_filter": _not_live,
            "socket_timeout": SILENT_SECONDS,
            "noplaylist": True,
            "playlist_items": "1",
            "cachedir": False,
            "fixup": "never",
            "logger": _Silent(),
            "no_color": True,
            "noprogress": True,
            "quiet": True,
        }


def classify(said: str) -> Answer:
    """What an error of yt-dlp means.

    Example:
        >>> classify("ERROR: [youtube] x: Private video. Sign in if you've been granted access").outcome
        <Outcome.PRIVATE: 'private'>
    """
    # Without the video's id, which may hold any word.
    why = re.sub(r"^(ERROR:\s*)?(\[[^\]]*\] \S+: )?", "", said.strip()).partition("\n")[0][:300]
    for outcome, pattern in _SAID:
        if re.search(pattern, why, re.IGNORECASE):
            return Answer(outcome, why)
    return Answer(Outcome.ERROR, why or "yt-dlp gave no reason")


def _not_live(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    return "a stream that has no end yet" if info.get("is_live") else None


class _Silent:
    """What yt-dlp says is in its errors."""

    def debug(self, said: str) -> None: ...

    def info(self, said: str) -> None: ...

    def warning(self, said: str) -> None: ...

    def error(self, said: str) -> None: ...
