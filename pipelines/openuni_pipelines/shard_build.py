"""One shard on its way through a build: which tasks are due, and what each outcome makes due next."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openuni import experts
from openuni.experts import Expert
from openuni.sample import Clip
from openuni.shards import columns, failures, layout, results
from openuni.shards.failures import Failure
from openuni_pipelines.executors import Fault, Finished
from openuni_pipelines.tasks import Annotate, Commit, Job, Normalise, Task, Worker

MAX_ATTEMPTS = 3
"""Faults of one clip in one stage after which the run goes on without it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a build makes: experts in the order they depend on each other, and modalities a clip must have to stay."""

    experts: tuple[type[Expert], ...]
    require: frozenset[str]

    @property
    def columns(self) -> dict[str, str]:
        """Expert's name by column, RGB left out."""
        return {expert.modality: expert.name for expert in self.experts if expert.modality is not None}


def recipe(names: Sequence[str], require: Sequence[str]) -> Recipe:
    """The experts `names` and all that they require, dependencies first. Raises OpenUniError on unknown names."""
    ordered: dict[str, type[Expert]] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            expert = experts.get(name)
            for needed in expert.requires:
                visit(needed)
            ordered[name] = expert

    for name in names:
        visit(name)
    return Recipe(tuple(ordered.values()), frozenset(require))


class ShardBuild:
    """The state of one shard, all of it derived from what lies on disk, so that a killed run resumes here.

    `due()` hands out tasks; `finished()` takes what came of them. When no task is left, `commits()` and then `close()`.
    """

    def __init__(self, job: Job, recipe: Recipe, number: int, clips: Sequence[Clip]) -> None:
        self.number = number
        self.failures: list[Failure] = failures.saved(job.root, number)
        self.dropped = 0
        self._job = job
        self._recipe = recipe
        self._worker = Worker(job)
        self._clips = {clip.key: clip for clip in clips}
        self._attempts: dict[tuple[str, str], int] = {}
        self._due: list[Task] = []
        self._outstanding = 0
        self._done: dict[str, set[str]] = {key: set() for key in self._clips}
        self._uncommitted = [column for column in ("rgb", *recipe.columns) if not self._is_committed(column)]
        self._committed = {
            self._maker(column): {row.key: row.status.present for row in columns.rows(job.root, number, column)}
            for column in ("rgb", *recipe.columns)
            if column not in self._uncommitted
        }
        self._wanted = self._experts_of(self._uncommitted)
        if not self._uncommitted:
            return
        if "rgb" in self._uncommitted:
            for clip in clips:
                if self._has_result(clip.key, "rgb"):
                    self._advance(clip.key, "rgb")
                else:
                    self._due.append(Normalise(number, clip))
        else:
            self._done = {key: set() for key in self._committed["rgb"]}
            for key in self._done:
                self._advance(key, "rgb")

    @property
    def clips(self) -> int:
        """Clips that were planned for this shard."""
        return len(self._clips)

    @property
    def has_due(self) -> bool:
        """Whether `due` would hand out a task now."""
        return bool(self._due)

    @property
    def idle(self) -> bool:
        """Nothing is due and nothing is under way."""
        return not self._due and self._outstanding == 0

    def due(self) -> Task | None:
        """The next task, or None for now."""
        if not self._due:
            return None
        self._outstanding += 1
        return self._due.pop()

    def finished(self, finished: Finished) -> bool:
        """Take the outcome of a task that `due` handed out. False: it failed and will be tried again."""
        self._outstanding -= 1
        task, result = finished.task, finished.result
        if isinstance(task, Normalise | Annotate):
            key, stage = (task.clip.key, "rgb") if isinstance(task, Normalise) else (task.key, task.expert)
            if isinstance(result, Fault):
                attempts = self._attempts[key, stage] = self._attempts.get((key, stage), 0) + 1
                if attempts < MAX_ATTEMPTS:
                    self._due.append(task)
                    return False
                failure = Failure(key, self.number, stage, result.kind, attempts, result.error)
                failures.save(self._job.root, failure, self._job.fingerprints[stage], self._job.run)
                self.failures.append(failure)
                self._worker.save_absent(task, _reason(result))
            self._advance(key, stage)
        elif isinstance(task, Commit):
            if isinstance(result, Fault):
                attempts = self._attempts["", task.column] = self._attempts.get(("", task.column), 0) + 1
                if attempts >= MAX_ATTEMPTS:
                    raise RuntimeError(f"shard {self.number}: {task.column} could not be committed: {result.error}")
                self._due.append(task)
                return False
            self._uncommitted.remove(task.column)
        return True

    def commits(self) -> bool:
        """Once all clips are through, make the commits due: RGB alone first, then the other columns.

        Returns False when nothing is left to commit.
        """
        if not self._uncommitted:
            return False
        first = "rgb" in self._uncommitted
        keys = self._kept() if first else tuple(row.key for row in columns.rows(self._job.root, self.number, "rgb"))
        self._due = [
            Commit(self.number, column, self._job.fingerprints[self._maker(column)], keys)
            for column in (["rgb"] if first else self._uncommitted)
        ]
        return True

    def close(self) -> None:
        """Empty the shard's folder in `work/`; everything in it is committed, or was dropped and counted."""
        shutil.rmtree(self._job.root / layout.work_name(self.number), ignore_errors=True)

    def _advance(self, key: str, stage: str) -> None:
        """Stage `stage` of clip `key` is through: hand out the experts that waited for it, or skip them for good."""
        done = self._done[key]
        done.add(stage)
        if stage == "rgb" and "rgb" in self._uncommitted and not self._present(key, "rgb"):
            done.update(expert.name for expert in self._wanted)
            return
        for expert in self._wanted:
            name = expert.name
            waits_for = {"rgb", *expert.requires}
            if name in done or stage not in waits_for or not waits_for <= done:
                continue
            if self._has_result(key, name):
                self._advance(key, name)
            elif missing := [needed for needed in expert.requires if not self._present(key, needed)]:
                self._worker.save_absent(Annotate(self.number, key, name), f"needs {missing[0]}, which is absent")
                self._advance(key, name)
            else:
                self._due.append(Annotate(self.number, key, name))

    def _kept(self) -> tuple[str, ...]:
        """Keys that make the shard: those with RGB and every required modality. The rest is counted as dropped."""
        needed = [self._maker(column) for column in ("rgb", *sorted(self._recipe.require))]
        kept = tuple(key for key in self._clips if all(self._present(key, name) for name in needed))
        self.dropped = len(self._clips) - len(kept)
        for key in self._clips:
            if key not in kept and not any(failure.key == key for failure in self.failures):
                name = next(name for name in needed if not self._present(key, name))
                note = results.load_note(self._job.root, self.number, key, self._job.fingerprints[name])
                self.failures.append(Failure(key, self.number, name, "refused", 1, note.status.reason))
        return kept

    def _maker(self, column: str) -> str:
        """Whose results become the column: `rgb`, or an expert's name."""
        return "rgb" if column == "rgb" else self._recipe.columns[column]

    def _is_committed(self, column: str) -> bool:
        record = columns.committed(self._job.root, self.number, column)
        return record is not None and record.fingerprint == self._job.fingerprints[self._maker(column)]

    def _experts_of(self, uncommitted: Sequence[str]) -> list[type[Expert]]:
        """Experts whose output is still needed: those of the columns, and what they require that no tar holds."""
        needed = {self._recipe.columns[column] for column in uncommitted if column != "rgb"}
        for expert in reversed(self._recipe.experts):
            if expert.name in needed:
                needed.update(expert.requires)
        return [expert for expert in self._recipe.experts if expert.name in needed]

    def _has_result(self, key: str, name: str) -> bool:
        return name in self._committed or results.exists(self._job.root, self.number, key, self._job.fingerprints[name])

    def _present(self, key: str, name: str) -> bool:
        """Whether the clip has what `name` makes, from the committed index or the unfinished result."""
        if name in self._committed:
            return self._committed[name].get(key, False)
        return results.load_note(self._job.root, self.number, key, self._job.fingerprints[name]).status.present


def clean(root: Path) -> None:
    """Remove `work/` when it holds nothing but empty folders."""
    work = root / "work"
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


def _reason(fault: Fault) -> str:
    """Why a modality is absent, in words that do not depend on which worker or attempt it was."""
    what = {"raised": fault.error, "died": "the worker process died", "hung": "it did not finish in time"}
    return f"failed {MAX_ATTEMPTS} times: {what.get(fault.kind, fault.error)}"
