"""All videos that are open: asked for by several threads, put into the folder whole, recorded one by one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit

from openuni.errors import BadVideoError, OpenUniError
from openuni.sources.download.files import FileClient
from openuni.sources.download.journal import Answer, Journal, Outcome
from openuni.sources.download.pace import Pace
from openuni.sources.download.pages import PageClient
from openuni.sources.folder import UNDER_WAY
from openuni.sources.rows import Wanted
from openuni.storage import publish
from openuni.video import SUFFIXES, probe

JOURNAL = "journal.jsonl"
_ATTEMPTS = 3
"""Requests for one video after which its errors wait for the next run."""
_SPARE = 1 << 30
"""Bytes that stay free on the disk."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How videos are downloaded.

    Example:
        >>> DownloadConfig(a_minute=6, cookies=Path("cookies.txt")).workers
        4
    """

    cookies: Path | None = field(default=None, metadata={"exists": True})
    """cookies.txt of an account, in Netscape's format; each cookie is sent only to its own site."""
    a_minute: float = field(default=30.0, metadata={"min": 0.01})
    """Requests for videos per minute and server."""
    workers: int = field(default=4, metadata={"min": 1, "max": 64})
    """Videos to download at the same time."""
    pause: float = field(default=60.0, metadata={"min": 0})
    """Seconds to pause when a server throttles and does not say for how long; doubled each time."""
    height: int = field(default=720, metadata={"min": 1})
    """Largest height to choose, in pixels, if a page offers several."""
    largest: int = field(default=4 << 30, metadata={"min": 1})
    """Refuse videos with more bytes."""


@dataclass(frozen=True, slots=True)
class DownloadSummary:
    """What a download came to, of all videos wanted."""

    wanted: int
    here: int
    """At hand before."""
    unnamed: int
    """Without an address."""
    outcomes: Counter[Outcome]
    """Of all others, earlier runs' where they were not asked for again."""
    asked: int
    """In this run."""
    bytes: int
    """That came in this run."""
    whys: Counter[str]
    """Reasons of all that did not come in this run, with their outcome."""

    @property
    def is_open(self) -> int:
        """How many the next run asks for."""
        return self.outcomes[Outcome.THROTTLED] + self.outcomes[Outcome.ERROR]


def download(
    videos: Iterable[Wanted],
    folder: Path,
    config: DownloadConfig | None = None,
    progress: Callable[[Wanted, Answer], None] = lambda video, answer: None,
) -> DownloadSummary:
    """Bring `videos` into `folder`, each under its name, and record what each came to in `.download/journal.jsonl`.

    An address whose path ends like a video file is downloaded as one; any other is a page for yt-dlp. A video that
    cannot be had is an outcome. Run it again to go on: what is there, gone, private or blocked is not asked for again
    (the last two are, once, with cookies). Raises OpenUniError where the disk is full, another run is at work in the
    folder, or yt-dlp is needed and missing.

    Example:
        >>> from openuni.sources.rows import Wanted
        >>> download([Wanted("a", "https://example.org/a.mp4")], Path("videos"))  # doctest: +SKIP
    """
    config = config or DownloadConfig()
    with _holding(folder / UNDER_WAY):
        run = _Run(folder, config)
        try:
            return run.all(videos, progress)
        finally:
            run.close()


class _Run:
    def __init__(self, folder: Path, config: DownloadConfig) -> None:
        self._folder, self._config = folder.resolve(), config
        self._scratch = self._folder / UNDER_WAY
        self._stopping = threading.Event()
        self._making = threading.Lock()
        self._paces: dict[str, Pace] = {}
        self._files = FileClient(config.cookies, config.largest, self._stopping)
        self._page_client: PageClient | None = None
        self._journal = Journal(self._scratch / JOURNAL)

    def close(self) -> None:
        self._journal.close()

    def all(self, videos: Iterable[Wanted], progress: Callable[[Wanted, Answer], None]) -> DownloadSummary:
        outcomes, whys = Counter[Outcome](), Counter[str]()
        here = unnamed = wanted = asked = received = 0
        running: dict[Future[Answer], Wanted] = {}
        has_cookies = self._config.cookies is not None

        def take(most: int) -> None:
            nonlocal asked, received
            while len(running) > most:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    video, answer = running.pop(future), future.result()
                    size = answer.file.stat().st_size if answer.file else 0
                    if answer.asked:
                        self._journal.write(video.name, video.url, answer, has_cookies, size)
                    asked, received = asked + answer.asked, received + size
                    outcomes[answer.outcome] += 1
                    if answer.why:
                        whys[f"{answer.outcome.value}: {answer.why}"] += 1
                    progress(video, answer)

        pool = ThreadPoolExecutor(self._config.workers, thread_name_prefix="download")
        try:
            for video in videos:
                wanted += 1
                if video.is_here:
                    here += 1
                elif not video.url:
                    unnamed += 1
                elif settled := self._journal.settled(video.name, has_cookies):
                    outcomes[settled] += 1
                else:
                    running[pool.submit(self._one, video)] = video
                    take(2 * self._config.workers)
            take(0)
        finally:
            self._stopping.set()
            pool.shutdown(cancel_futures=True)
        return DownloadSummary(wanted, here, unnamed, outcomes, asked, received, whys)

    def _one(self, video: Wanted) -> Answer:
        address = _address(video.url)
        if address is None or not address.hostname:
            return Answer(Outcome.ERROR, "its address is none of http:// or https://")
        if not _is_safe(video.name):
            return Answer(Outcome.ERROR, "its name cannot be a file's")
        is_file = PurePosixPath(address.path).suffix.lower() in SUFFIXES
        # A hash: no two videos share a folder, whatever they are called.
        scratch = self._scratch / hashlib.sha256(f"{video.name}\n{video.url}".encode()).hexdigest()[:24]
        answer = Answer(Outcome.THROTTLED, "not asked: its server throttles", asked=False)
        pace = self._pace(address.hostname)
        attempt = 0
        while attempt < _ATTEMPTS and (started := pace.wait()) is not None:
            self._check_space()
            scratch.mkdir(exist_ok=True)
            answer = (self._files if is_file else self._pages()).fetch(video.url, scratch)
            if answer.outcome is Outcome.THROTTLED:
                pace.refused(started, answer.retry_after)
                continue
            pace.answered()
            attempt += 1
            if answer.outcome is not Outcome.ERROR:
                break
        if answer.file is not None:
            answer = self._keep(answer.file, video, address.path)
        if answer.outcome not in (Outcome.THROTTLED, Outcome.ERROR):
            shutil.rmtree(scratch, ignore_errors=True)
        return answer

    def _keep(self, file: Path, video: Wanted, path: str) -> Answer:
        """Give a whole file its name, if it is a video."""
        try:
            probe(file)
        except BadVideoError as error:
            file.unlink()
            return Answer(Outcome.ERROR, f"no video came: {str(error).removeprefix(f'{file}: ')}")
        suffix = file.suffix if file.suffix in SUFFIXES else PurePosixPath(path).suffix
        has_suffix = PurePosixPath(video.name).suffix.lower() in SUFFIXES
        target = self._folder / (video.name if has_suffix else video.name + suffix.lower())
        # A link inside the folder may lead out of it.
        if not target.parent.resolve().is_relative_to(self._folder):
            return Answer(Outcome.ERROR, "its place is behind a link that leaves the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        publish(file, target)
        return Answer(Outcome.GOT, file=target)

    def _pace(self, host: str) -> Pace:
        with self._making:
            if host not in self._paces:
                self._paces[host] = Pace(60 / self._config.a_minute, self._config.pause, self._stopping)
            return self._paces[host]

    def _pages(self) -> PageClient:
        with self._making:
            if self._page_client is None:
                config = self._config
                self._page_client = PageClient(config.cookies, config.largest, config.height, self._stopping)
            return self._page_client

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < _SPARE:
            raise OpenUniError(
                f"{self._folder}: {free / 1e6:,.0f} MB are free, less than a download should leave; make room, or give "
                "--videos a folder on a larger disk, and run the same command again"
            )


def _address(url: str) -> SplitResult | None:
    """The parts of a web address; None of what is none."""
    try:
        address = urlsplit(url)
    except ValueError:
        return None
    return address if url.isprintable() and address.scheme in ("http", "https") else None


def _is_safe(name: str) -> bool:
    """Whether a name from a table can be that of a file below the folder, and nothing else.

    Example:
        >>> _is_safe("part_1/-abc.mp4"), _is_safe("../x"), _is_safe("/x"), _is_safe(".download/x")
        (True, False, False, False)
    """
    return (
        name.isprintable()
        and "\\" not in name
        and all(part and not part.startswith(".") and len(part.encode()) <= 200 for part in name.split("/"))
    )


@contextmanager
def _holding(scratch: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it. Raises OpenUniError where there is one."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OpenUniError(
                f"another download is at work in {scratch.parent}; wait for it, or give --videos another folder"
            ) from error
        yield
