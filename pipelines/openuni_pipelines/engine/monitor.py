"""How far a long run is: a callback, a JSON-lines log and `progress.json` in the folder."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openuni import printable
from openuni.shards import layout
from openuni.storage import LocalStore
from openuni_pipelines.engine.executors import Fault, Finished
from openuni_pipelines.engine.recipe import Kind
from openuni_pipelines.engine.stages import Expand

_SAVE_SECONDS = 2.0
_MOST_LOGGED = 1 << 20


@dataclass
class StageProgress:
    """One stage so far. `done` of `total` clips are through; of these this run has `worked` on some, and spent
    `seconds` of worker time and `frames` on them; `absent` and `faults` count what it met."""

    total: int
    done: int = 0
    worked: int = 0
    absent: int = 0
    faults: int = 0
    seconds: float = 0.0
    frames: int = 0

    @property
    def seconds_left(self) -> float:
        """Worker time for what is left, at what a clip has cost so far."""
        return (self.total - self.done) * self.seconds / self.worked if self.worked else 0.0


@dataclass
class RunProgress:
    """`progress.json`: what `openuni status` shows of a run. Times are seconds since the epoch.

    `running` tasks are with the workers or wait for one; `faults` counts by kind.
    """

    run: str
    started: float
    updated: float
    shards: int
    columns: tuple[str, ...]
    shards_done: int = 0
    running: int = 0
    stages: dict[str, StageProgress] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    finished: bool = False

    def seconds_left(self) -> float | None:
        """Time until the end if the workers stay as busy as they were; None until every stage has done a clip."""
        spent = sum(stage.seconds for stage in self.stages.values())
        unknown = [n for n, s in self.stages.items() if n != "commit" and s.done < s.total and not s.worked]
        if not spent or unknown:
            return None
        return sum(stage.seconds_left for stage in self.stages.values()) * (self.updated - self.started) / spent


class Monitor:
    """Counts what happens, tells it, and writes it down in `home`."""

    def __init__(
        self,
        home: Path,
        run: str,
        stages: Mapping[str, int],
        shards: int,
        columns: tuple[str, ...],
        tell: Callable[[RunProgress], None] | None,
    ) -> None:
        now = time.time()
        counts = {name: StageProgress(total) for name, total in stages.items()}
        self.progress = RunProgress(run, now, now, shards, columns, stages=counts)
        self._home = home
        self._saved = 0.0
        self._seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._tell = tell
        self._log = LocalStore(home).append(layout.LOG)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.finished = error is None
        if self._tell is not None and error is None:
            self._tell(self.progress)
        # On a full disk the error that is on its way says more than one about the log would.
        with suppress(OSError) if error is not None else nullcontext():
            if error is not None:
                self.log("stopped", error=f"{type(error).__name__}: {error}")
            self._save()
        with suppress(OSError):
            self._log.close()

    def log(self, event: str, **fields: Any) -> None:
        """One line of `log.jsonl`."""
        line = {"time": round(time.time(), 3), "run": self.progress.run, "event": event, **fields}
        self._log.write(printable.plain(json.dumps(line, ensure_ascii=False), _MOST_LOGGED).encode() + b"\n")
        self._log.flush()

    def finished(self, finished: Finished, *, final: bool) -> None:
        """Count a task's outcome; `final` is False for a fault that will be tried again."""
        task, result = finished.task, finished.result
        if isinstance(task, Expand):
            return
        commit = task.stage.kind is Kind.COMMIT
        stage = "commit" if commit else task.stage.name
        place = {"shard": task.shard, **({"column": task.stage.column} if commit else {"key": task.key})}
        if isinstance(result, Fault):
            self.progress.stages[stage].faults += 1
            self.progress.faults[result.kind] = self.progress.faults.get(result.kind, 0) + 1
            self.log("fault", stage=stage, kind=result.kind, error=result.error, **place)
        else:
            counts = self.progress.stages[stage]
            counts.seconds += result.seconds
            counts.frames += result.frames
            counts.absent += not result.present
            if commit:
                self.log("commit", **place, samples=result.frames, seconds=round(result.seconds, 3))
        if final:
            self.progress.stages[stage].worked += 1
            self._seen[task.shard][stage] += 1
            self.progress.stages[stage].done += 1

    def tick(self, running: int) -> None:
        """Now and then write down where the run is, also while nothing finishes."""
        self.progress.running = running
        self.progress.updated = time.time()
        if self._tell is not None:
            self._tell(self.progress)
        if self.progress.updated - self._saved > _SAVE_SECONDS:
            self._save()

    def shard_done(self, shard: int, clips: int) -> None:
        """Every stage is through with this shard's clips, also those it never saw: committed before, or dropped."""
        self.progress.shards_done += 1
        seen = self._seen.pop(shard, Counter())
        for name, stage in self.progress.stages.items():
            stage.done += (len(self.progress.columns) if name == "commit" else clips) - seen[name]

    def _save(self) -> None:
        self._saved = self.progress.updated = time.time()
        data = json.dumps(asdict(self.progress), indent=1).encode()
        LocalStore(self._home).put(layout.PROGRESS, data, self.progress.run)
