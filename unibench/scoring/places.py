"""Runs and reports that lie in a bucket: predictions are brought here, reports are worked on here and put there."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openuni import outputs
from openuni.errors import OpenUniError
from openuni.shards import view
from openuni.shards.layout import MANIFEST
from openuni.shards.lock import RunLock
from openuni.storage import claim, is_object_url
from openuni.storage.objects import ObjectStore
from unibench.report import previews
from unibench.scoring.config import ScoreConfig

FOLDER = "score"
"""Where the report of a run goes that is not told otherwise, in the run's folder."""
_PUT_SECONDS = 30.0
"""How often the journal is put while samples are scored."""


@contextmanager
def at_hand(run: Path | str, say: Callable[[str], None]) -> Iterator[str]:
    """A run that can be opened: a dataset or a view wherever it lies, a folder of ordinary files here. Of a folder in a
    bucket that is a copy, without reports and previews. Raises OpenUniError where there is nothing.
    """
    where = str(run)
    if not is_object_url(where) or view.is_view(where):
        yield where
        return
    store = ObjectStore(where)
    if store.exists(MANIFEST):
        yield store.url
        return
    if store.first() is None:
        raise OpenUniError(f"{where} holds nothing; give a dataset or a folder laid out as <task>/<key>.<ext>")
    with tempfile.TemporaryDirectory(prefix="openuni-predictions-") as folder:
        say(f"bringing the predictions of {where}")
        outputs.fetch_folder(store, Path(folder), leave=(FOLDER, previews.FOLDER))
        yield folder


class Reports:
    """The folder that reports are written to, and where it is for people."""

    def __init__(self, folder: Path, mirror: outputs.Mirror | None = None, url: str = "") -> None:
        self.folder = folder
        self._mirror = mirror
        self._url = url

    def where(self, name: str) -> str:
        return f"{self._url}/{name}" if self._url else str(self.folder / name)

    def put(self, *names: str) -> None:
        """Put these files, where reports lie in a bucket."""
        if self._mirror is not None:
            self._mirror.put(*names)

    @contextmanager
    def putting(self, name: str) -> Iterator[None]:
        """Put a file that grows, now and then and at the end of the block."""
        if self._mirror is None:
            yield
            return
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_PUT_SECONDS):
                with suppress(OpenUniError):  # a store that does not answer now may the next time
                    self.put(name)

        thread = threading.Thread(target=beat, daemon=True, name="openuni-journal")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.put(name)


@contextmanager
def reports(config: ScoreConfig, pred: Path | str, run: str, marks: tuple[str, str], journal: str) -> Iterator[Reports]:
    """Hold the place of a run's reports; of one in a bucket with the journal that an interrupted run left there."""
    out = config.out
    if out is None and view.is_view(str(pred)):
        raise OpenUniError(f"{pred} is a view, a file: name the folder of its report with --out")
    place = out if out is not None else f"{str(pred).rstrip('/')}/{FOLDER}" if is_object_url(str(pred)) else None
    if place is None or not is_object_url(str(place)):
        if config.staging is not None:
            raise OpenUniError("--staging is for a report in an object store (s3://…); a folder is written where it is")
        where = Path(pred) / FOLDER if place is None else Path(place)
        claim(where, marks=marks, below=Path(pred) if place is None else None)
        with RunLock(where, run):  # two would write one journal
            yield Reports(where)
        return
    url = str(place).rstrip("/")
    where = config.staging or outputs.staging(url)
    claim(where)
    with RunLock(where, run), outputs.holding(url, run, where) as store:
        outputs.bring_file(store, journal, where, run)
        yield Reports(where, outputs.Mirror(store, where, run), url)
