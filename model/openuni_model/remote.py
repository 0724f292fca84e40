"""A training run in a bucket. It works in a staging folder; what is in the bucket is what counts.

`checkpoints/<step>.json` is the record of a checkpoint: it is put last, and created once. The checkpoint's files are
below `checkpoints/<step>/`, under names with their hashes; `base` of a run with adapters is put in the same way. The
log, TensorBoard events, sample pictures and the finished model have plain names.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from openuni import outputs
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import layout, lease
from openuni.shards.bucket import BeatenError
from openuni.storage import is_object_url
from openuni.storage.objects import ObjectStore
from openuni_model import checkpoint
from openuni_model.checkpoint import BASE, CheckpointError

CHECKPOINTS = "checkpoints"
_PLAIN = ("log.jsonl", "tensorboard", "samples")
_FINISHED = ("model", "adapter")
_STEP = re.compile(r"checkpoints/(\d{8})/.+")

Say = Callable[[str], None]


class RemoteRun:
    """The bucket's side of a run that this process holds and works on in `out`."""

    def __init__(self, store: ObjectStore, out: Path, run: str, keep: int) -> None:
        self._store, self._out, self._run, self._keep = store, out, run, keep
        self._folder = out / CHECKPOINTS
        self._mirror = outputs.Mirror(store, out, run)
        self._there = {Path(name).name for name in outputs.bundles(store, CHECKPOINTS)}
        self._damaged: set[str] = set()
        self.url = store.url

    @property
    def is_begun(self) -> bool:
        """Whether the bucket holds a checkpoint."""
        return bool(self._there)

    def bring(self, say: Say) -> None:
        """Make folder and bucket agree on the newest checkpoint: the one with more steps counts, and at equal steps the
        bucket's. If it is damaged, the one before it is taken."""
        if self._store.exists(f"{BASE}.json") and not (self._out / BASE).is_dir():
            say(f"bringing {self._store.where(BASE)}")
            outputs.pull(self._store, BASE, self._out / BASE, self._run)
        for step in sorted(self._there, reverse=True):
            newest, _ = checkpoint.newest(self._folder)
            if newest is not None and newest.name > step:
                break
            try:
                self._bring(step, say)
                break
            except CorruptDataError as error:
                self._damaged.add(step)
                say(f"{error}; taking the checkpoint before it")
        newest, _ = checkpoint.newest(self._folder)
        if newest is not None:  # the run may have been killed between the checkpoint here and the one there
            self.put(newest, say)

    def _bring(self, step: str, say: Say) -> None:
        name, path = f"{CHECKPOINTS}/{step}", self._folder / step
        record = outputs.read(self._store, name)
        if path.is_dir():
            if _same(record, path):
                return
            shutil.rmtree(path)
        say(f"bringing {self._store.where(name)} ({record.size / 1e6:,.0f} MB)")
        outputs.pull(self._store, name, path, self._run)
        outputs.bring_file(self._store, layout.LOG, self._out, self._run)

    def put_base(self) -> None:
        """Put what adapters start from, before the first checkpoint that needs it."""
        if (self._out / BASE).is_dir() and not self._store.exists(f"{BASE}.json"):
            outputs.push(self._store, BASE, self._out / BASE, self._run)

    def checkpoint(self, path: Path, say: Say) -> None:
        """Put a new checkpoint. If the store does not answer, that is only a warning: the next checkpoint is put.

        Raises HeldError or BeatenError if another run has taken over, PlanError if the store refuses.
        """
        try:
            self.put_log()  # first: the log may have steps that will be run again, but must lack none
            self.put(path, say)
        except (PlanError, BeatenError):
            raise
        except OpenUniError as error:
            say(f"warning: {error}; the checkpoint stays in {path}, and the next one is put")

    def put_log(self) -> None:
        """Put log, events and sample pictures, as far as they have changed."""
        self._mirror.put(*_PLAIN)

    def put(self, path: Path, say: Say) -> None:
        """Put a checkpoint that is not there yet, then remove all but the newest that are to be kept."""
        name = f"{CHECKPOINTS}/{path.name}"
        if path.name in self._damaged:
            outputs.remove(self._store, name)
            self._damaged.discard(path.name)
            self._there.discard(path.name)
        if path.name in self._there:
            return
        lease.check(self._store, self._run)
        began = time.monotonic()
        record = outputs.push(self._store, name, path, self._run)
        self._there.add(path.name)
        say(f"put {self._store.where(name)} ({record.size / 1e6:,.0f} MB in {time.monotonic() - began:.1f} s)")
        try:
            self._retain()
        except OpenUniError as error:
            say(f"warning: checkpoints before the last {self._keep} were not removed: {error}")

    def _retain(self) -> None:
        """Remove old checkpoints, and what was put of one before the newest that never came to count."""
        kept = sorted(self._there)[-self._keep :]
        begun = {found[1] for name in self._store.walk(CHECKPOINTS) if (found := _STEP.fullmatch(name))}
        for step in sorted(self._there | begun):
            if step not in kept and step < kept[-1]:
                outputs.remove(self._store, f"{CHECKPOINTS}/{step}")
                self._there.discard(step)

    def finish(self, say: Say) -> None:
        """Put what is not there yet: the newest checkpoint, the log, the finished model. Raises where that fails."""
        newest, _ = checkpoint.newest(self._folder)
        if newest is not None:
            self.put(newest, say)
        self.put_log()
        self._mirror.put(*_FINISHED)


def _same(record: outputs.Bundle, path: Path) -> bool:
    """Whether a checkpoint here is whole and the one of the record: its state has the hash of every other file."""
    try:
        checkpoint.read_progress(path)
    except CheckpointError:
        return False
    return layout.file_record(path / checkpoint.STATE) == record.files.get(checkpoint.STATE)


@contextmanager
def at_hand(where: Path | str) -> Iterator[Path]:
    """A run, checkpoint or model folder to read; of one in a bucket a copy, of a run there its newest whole checkpoint.

    Raises CheckpointError where there is none.
    """
    if not (isinstance(where, str) and is_object_url(where)):
        yield Path(where)
        return
    with tempfile.TemporaryDirectory(prefix="openuni-model-") as folder:
        yield _fetch(where.rstrip("/"), Path(folder))


def _fetch(url: str, folder: Path) -> Path:
    parent, _, last = url.rpartition("/")
    if re.fullmatch(r"\d{8}", last):  # one checkpoint of a run
        run, _, _ = parent.rpartition("/")
        return _fetch_checkpoint(ObjectStore(run), f"{CHECKPOINTS}/{last}", folder)
    store = ObjectStore(url)
    damaged = ""
    for name in reversed(outputs.bundles(store, CHECKPOINTS)):
        try:
            return _fetch_checkpoint(store, name, folder)
        except CorruptDataError as error:
            damaged = damaged or str(error)
    if damaged:
        raise CheckpointError(damaged)
    if not store.exists("config.json"):
        raise CheckpointError(f"{url} has neither a checkpoint nor a model; name a run, a checkpoint or a model folder")
    outputs.fetch_folder(store, folder)
    return folder


def _fetch_checkpoint(store: ObjectStore, name: str, folder: Path) -> Path:
    """Brought to where a run has it, beside the model that adapters start from."""
    if store.exists(f"{BASE}.json") and not (folder / BASE).is_dir():
        outputs.pull(store, BASE, folder / BASE, "read")
    outputs.pull(store, name, folder / name, "read")
    return folder / name
