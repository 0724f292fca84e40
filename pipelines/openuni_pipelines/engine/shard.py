"""One shard on its way through a build: which tasks are due, and what each outcome makes due next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from openuni import experts
from openuni.errors import OpenUniError, PlanError
from openuni.experts import Expert
from openuni.sample import Clip
from openuni.shards import columns, failures, layout, results
from openuni.shards.failures import Failure
from openuni.shards.results import DamagedResultError
from openuni_pipelines.engine.executors import Fault, Finished
from openuni_pipelines.engine.stages import (
    MAX_ATTEMPTS,
    Annotate,
    Commit,
    Expand,
    Job,
    Normalise,
    Outcome,
    Task,
    Worker,
)


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
    """The experts `names` and all that they require, dependencies first. Raises OpenUniError on unknown names, and
    where two of them make the same modality or none makes a required one.
    """
    ordered: dict[str, type[Expert]] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            expert = experts.get(name)
            for needed in expert.requires:
                visit(needed)
            ordered[name] = expert

    for name in names:
        visit(name)
    makers: dict[str, str] = {}
    for expert in ordered.values():
        if expert.modality is not None and (other := makers.setdefault(expert.modality, expert.name)) != expert.name:
            raise PlanError(f"experts {other} and {expert.name} both make {expert.modality}; a dataset has one of each")
    if unknown := set(require) - set(makers):
        raise PlanError(f"--require {', '.join(sorted(unknown))}: no chosen expert makes that modality")
    return Recipe(tuple(ordered.values()), frozenset(require))


class ShardBuild:
    """The state of one shard, all of it derived from what lies on disk, so that a killed run resumes here.

    `due()` hands out tasks; `finished()` takes what came of them. When no task is left, `commits()` and then `close()`.
    """

    def __init__(self, job: Job, recipe: Recipe, number: int, clips: Sequence[Clip]) -> None:
        self.number = number
        self._job = job
        self._recipe = recipe
        self._worker = Worker(job)
        self._clips = {clip.key: clip for clip in clips}
        self._attempts: dict[tuple[str, str], int] = {}
        self._due: list[Task] = []
        self._outstanding = 0
        self._uncommitted = [column for column in ("rgb", *recipe.columns) if not self._is_committed(column)]
        self._committed = {
            self._maker(column): {row.key: row.status.present for row in columns.rows(job.root, number, column)}
            for column in ("rgb", *recipe.columns)
            if self._uncommitted and column not in self._uncommitted
        }
        self.remade = {self._maker(column) for column in self._uncommitted}
        """Stages whose failures this run finds anew; those written down for this shard before are void."""
        for expert in reversed(recipe.experts):
            if expert.name in self.remade:
                self.remade.update(name for name in expert.requires if name not in self._committed)
        self._made = self._results()
        """Whether a clip has what a stage makes, by key and stage, of the results in `work/`."""
        self.failures: list[Failure] = [f for f in failures.saved(job.root, number) if self._stands(f)]
        keys = self._committed.get("rgb", self._clips)
        self._waiting: dict[str, list[type[Expert]]] = {}
        """Experts not yet handed out, by clip, dependencies first."""
        self._unfinished: dict[str, set[str]] = {}
        """Stages waiting or handed out, by clip."""
        if not self._uncommitted:
            return
        results.open_work(job.root, number)
        for key in keys:
            self._waiting[key] = self._needed(key)
            self._unfinished[key] = {expert.name for expert in self._waiting[key]}
            if self._has_result(key, "rgb"):
                self._advance(key, "rgb")
            else:
                self._unfinished[key].add("rgb")
                self._due.append(Normalise(number, self._clips[key]))
        # Taken from the end: in the order of the plan.
        self._due.reverse()

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
        """Take the outcome of a task that `due` handed out. False: it will be tried again.

        Raises OpenUniError where a column cannot be committed.
        """
        self._outstanding -= 1
        task, result = finished.task, finished.result
        if isinstance(task, Expand):
            raise TypeError("finding clips is not part of a shard's build")
        if isinstance(task, Commit):
            key, stage = "", task.column
        else:
            key, stage = (task.clip.key, "rgb") if isinstance(task, Normalise) else (task.key, task.expert)
        if isinstance(result, Fault) and result.kind == "damaged":
            self._make_again(result, task)
            return False
        if isinstance(result, Fault):
            attempts = self._attempts.get((key, stage), 0) + (result.kind != "lost")
            self._attempts[key, stage] = attempts
            if attempts < MAX_ATTEMPTS:
                self._due.append(task)
                return False
            if isinstance(task, Commit):
                raise OpenUniError(f"{layout.tar_name(self.number, stage)} could not be committed: {result.error}")
            failure = Failure(key, self.number, stage, result.kind, attempts, result.error)
            failures.save(self._job.root, failure, self._job.fingerprints[stage], self._job.run)
            self.failures.append(failure)
            self._worker.save_absent(task, _reason(result))
        if isinstance(task, Commit):
            self._uncommitted.remove(task.column)
        else:
            self._made[key, stage] = isinstance(result, Outcome) and result.present
            self._advance(key, stage)
        return True

    def _make_again(self, damage: Fault, task: Normalise | Annotate | Commit) -> None:
        """A result that `task` needs is not as it was written: its stage makes it again, and then `task` its own.

        The damaged file stays until it is replaced: other tasks that need it fail in the same way and wait as well.
        """
        key = damage.key
        stage = next(name for name, made in self._job.fingerprints.items() if made == damage.fingerprint)
        if stage not in self._unfinished[key]:
            times = self._attempts.get((key, f"reading {stage}"), 0) + 1
            self._attempts[key, f"reading {stage}"] = times
            if times > MAX_ATTEMPTS:
                raise OpenUniError(f"{damage.error}. It has been made again {MAX_ATTEMPTS} times: check the disk")
            self._unfinished[key].add(stage)
            again = Normalise(self.number, self._clips[key]) if stage == "rgb" else Annotate(self.number, key, stage)
            self._due.append(again)
        if isinstance(task, Annotate):
            self._waiting[key].insert(0, experts.get(task.expert))
        # A commit is not kept: `commits` makes it due again when the shard is idle.

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
        results.close_work(self._job.root, self.number)

    def _needed(self, key: str) -> list[type[Expert]]:
        """Experts that must still look at this clip: those of open columns, and what they require that is not there."""
        wanted = {self._recipe.columns[column] for column in self._uncommitted if column != "rgb"}
        needed: list[type[Expert]] = []
        for expert in reversed(self._recipe.experts):
            if expert.name in wanted and not self._has_result(key, expert.name):
                needed.insert(0, expert)
                wanted.update(expert.requires)
        return needed

    def _advance(self, key: str, stage: str) -> None:
        """Stage `stage` of clip `key` is through: hand out the experts that waited for it, or skip them for good."""
        waiting, unfinished = self._waiting[key], self._unfinished[key]
        unfinished.discard(stage)
        if stage == "rgb" and not self._present(key, "rgb"):
            waiting.clear()
        for expert in list(waiting):
            if unfinished.intersection(("rgb", *expert.requires)):
                continue
            waiting.remove(expert)
            task = Annotate(self.number, key, expert.name)
            if missing := [needed for needed in expert.requires if not self._present(key, needed)]:
                self._worker.save_absent(task, f"needs {missing[0]}, which is absent")
                self._made[key, expert.name] = False
                unfinished.discard(expert.name)
            else:
                self._due.append(task)

    def _kept(self) -> tuple[str, ...]:
        """Keys that make the shard: those with RGB and every required modality. Each other is written down."""
        needed = [self._maker(column) for column in ("rgb", *sorted(self._recipe.require))]
        kept: list[str] = []
        known = {failure.key for failure in self.failures}
        for key in self._clips:
            missing = next((name for name in needed if not self._present(key, name)), None)
            if missing is None:
                kept.append(key)
            elif key not in known:
                fingerprint = self._job.fingerprints[missing]
                note = results.load_note(self._job.root, self.number, key, fingerprint)
                failure = Failure(key, self.number, missing, "refused", 1, note.status.reason)
                failures.save(self._job.root, failure, fingerprint, self._job.run)
                self.failures.append(failure)
        return tuple(kept)

    def _stands(self, failure: Failure) -> bool:
        """Whether a failure that was saved beside the results is still what the result says."""
        return self._made.get((failure.key, failure.stage)) is False

    def _results(self) -> dict[tuple[str, str], bool]:
        """What lies in `work/`, as far as it can be read; what is damaged is made again."""
        stages = {fingerprint: name for name, fingerprint in self._job.fingerprints.items()}
        made: dict[tuple[str, str], bool] = {}
        for key, fingerprint in results.saved(self._job.root, self.number):
            if fingerprint in stages:
                with suppress(DamagedResultError):
                    note = results.load_note(self._job.root, self.number, key, fingerprint)
                    made[key, stages[fingerprint]] = note.status.present
        return made

    def _maker(self, column: str) -> str:
        """Whose results become the column: `rgb`, or an expert's name."""
        return "rgb" if column == "rgb" else self._recipe.columns[column]

    def _is_committed(self, column: str) -> bool:
        record = columns.committed(self._job.root, self.number, column)
        return record is not None and record.fingerprint == self._job.fingerprints[self._maker(column)]

    def _has_result(self, key: str, name: str) -> bool:
        return name in self._committed or (key, name) in self._made

    def _present(self, key: str, name: str) -> bool:
        """Whether the clip has what `name` makes, from the committed index or the unfinished result."""
        if name in self._committed:
            return self._committed[name].get(key, False)
        return self._made[key, name]


def _reason(fault: Fault) -> str:
    """Why a modality is absent, in words that do not depend on which worker or attempt it was."""
    what = {"raised": fault.error, "died": "the worker process died", "hung": "it did not finish in time"}
    return f"failed {MAX_ATTEMPTS} times: {what.get(fault.kind, fault.error)}"
