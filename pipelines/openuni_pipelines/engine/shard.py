"""One shard on its way through a build: which tasks are due, and what each outcome makes due next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from contextlib import suppress

from openuni.errors import OpenUniError
from openuni.sample import Clip
from openuni.shards import columns, failures, layout, results
from openuni.shards.failures import Failure
from openuni.shards.results import DamagedResultError
from openuni_pipelines.engine.executors import Fault, Finished
from openuni_pipelines.engine.recipe import RGB, Kind, Stage
from openuni_pipelines.engine.stages import MAX_ATTEMPTS, Expand, Job, Outcome, Run, Worker


class ShardBuild:
    """The state of one shard, all of it derived from what lies on disk, so that a killed run resumes here.

    `due()` hands out tasks; `finished()` takes what came of them. When no task is left, `commits()` and then `close()`.
    """

    def __init__(self, job: Job, number: int, clips: Sequence[Clip]) -> None:
        self.number = number
        self._job = job
        self._recipe = job.recipe
        self._worker = Worker(job)
        self._clips = {clip.key: clip for clip in clips}
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._due: list[Run] = []
        self._outstanding = 0
        self._open = [stage for stage in self._recipe.commits if not self._is_committed(stage)]
        """Commits that are still to be made."""
        self._made = self._results()
        """By key and stage, whether the clip has what the stage makes: an unfinished result, or what is committed."""
        self._waiting: dict[str, list[Stage]] = {}
        """Stages not yet handed out, by clip, in the order of the recipe."""
        self._unfinished: set[tuple[str, str]] = set()
        """Keys and stages that wait or are handed out."""
        self.remade: set[str] = set()
        """Stages whose failures this run finds anew; those written down for this shard before are void."""
        if self._open:
            self._begin()
        self.failures: list[Failure] = [f for f in failures.saved(job.root, number) if self._stands(f)]

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

    def due(self) -> Run | None:
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
        if isinstance(result, Fault):
            if result.kind == "damaged":
                self._make_again(result, task)
                return False
            attempt = task.key, task.stage.name
            self._attempts[attempt] += result.kind != "lost"
            if self._attempts[attempt] < MAX_ATTEMPTS:
                self._due.append(task)
                return False
            self._give_up(task, result)
        if task.stage.kind is Kind.COMMIT:
            self._open.remove(task.stage)
        else:
            self._made[task.key][task.stage.name] = isinstance(result, Outcome) and result.present
            self._unfinished.discard((task.key, task.stage.name))
            self._advance(task.key)
        return True

    def commits(self) -> bool:
        """Once all clips are through, make the commits due whose own needs are committed: RGB alone, then the others.

        Returns False when nothing is left to commit.
        """
        if not self._open:
            return False
        waiting = {stage.name for stage in self._open}
        ready = [stage for stage in self._open if waiting.isdisjoint(stage.needs)]
        if self._is_open(RGB):
            keys = self._kept()
        else:
            keys = tuple(row.key for row in columns.rows(self._job.root, self.number, RGB))
        self._due = [Run(self.number, "", stage, keys=keys) for stage in ready]
        return True

    def close(self) -> None:
        """Empty the shard's folder in `work/`; everything in it is committed, or was dropped and counted."""
        results.close_work(self._job.root, self.number)

    def _begin(self) -> None:
        """Find what is to be made of each clip, and hand out what waits for nothing."""
        results.open_work(self._job.root, self.number)
        committed: dict[str, dict[str, bool]] = {}
        for stage in self._recipe.commits:
            if stage not in self._open:
                rows = columns.rows(self._job.root, self.number, stage.column)
                committed[stage.needs[0]] = {row.key: row.status.present for row in rows}
        keys = list(committed.get(RGB, self._clips))
        self.remade = {stage.name for stage in self._needed(committed)}
        for key in keys:
            self._made[key].update({name: present.get(key, False) for name, present in committed.items()})
            self._waiting[key] = self._needed(self._made[key])
            self._unfinished.update((key, stage.name) for stage in self._waiting[key])
            self._advance(key)
        # Taken from the end: in the order of the plan.
        self._due.reverse()

    def _needed(self, there: Container[str]) -> list[Stage]:
        """What must be made for the open columns where the stages in `there` have been: in the order of the recipe."""
        wanted = {stage.needs[0] for stage in self._open}
        needed: list[Stage] = []
        for stage in reversed(self._recipe.stages):
            if stage.name in wanted and stage.name not in there:
                needed.insert(0, stage)
                wanted.update(stage.needs)
        return needed

    def _advance(self, key: str) -> None:
        """Hand out the stages of a clip whose needs are through; skip those that lack one for good."""
        for stage in list(self._waiting[key]):
            if any((key, needed) in self._unfinished for needed in stage.needs):
                continue
            self._waiting[key].remove(stage)
            task = self._task(key, stage)
            lacking = next((needed for needed in stage.needs if self._lacks(key, stage, needed)), None)
            if lacking is None:
                self._due.append(task)
                continue
            # A clip that lacks something required is dropped: nobody asks what else it has not.
            if lacking not in self._recipe.required:
                self._worker.save_absent(task, f"needs {lacking}, which is absent")
            self._made[key][stage.name] = False
            self._unfinished.discard((key, stage.name))

    def _lacks(self, key: str, stage: Stage, needed: str) -> bool:
        return not self._made[key][needed] and (needed not in stage.optional or needed in self._recipe.required)

    def _make_again(self, damage: Fault, task: Run) -> None:
        """A result that `task` needs is not as it was written: its stage makes it again, and then `task` its own.

        The damaged file stays until it is replaced: other tasks that need it fail in the same way and wait as well.
        """
        key = damage.key
        stage = next(stage for stage in self._recipe.stages if stage.fingerprint == damage.fingerprint)
        if (key, stage.name) not in self._unfinished:
            self._attempts[key, f"reading {stage.name}"] += 1
            if self._attempts[key, f"reading {stage.name}"] > MAX_ATTEMPTS:
                raise OpenUniError(f"{damage.error}. It has been made again {MAX_ATTEMPTS} times: check the disk")
            self._unfinished.add((key, stage.name))
            self._due.append(self._task(key, stage))
        if task.stage.kind is not Kind.COMMIT:
            self._waiting[key].insert(0, task.stage)
        # A commit is not kept: `commits` makes it due again when the shard is idle.

    def _give_up(self, task: Run, fault: Fault) -> None:
        """Write down that a clip failed in a stage, which leaves it without what the stage makes."""
        if task.stage.kind is Kind.COMMIT:
            tar = layout.tar_name(self.number, task.stage.column, layout.naming_of(self._job.root))
            raise OpenUniError(f"{tar} could not be committed: {fault.error}")
        attempts = self._attempts[task.key, task.stage.name]
        self._fail(Failure(task.key, self.number, task.stage.name, fault.kind, attempts, fault.error))
        self._worker.save_absent(task, _reason(fault))

    def _kept(self) -> tuple[str, ...]:
        """Keys that make the shard: those with all that is required. Each other is written down."""
        kept: list[str] = []
        known = {failure.key for failure in self.failures}
        for key in self._clips:
            missing = next((name for name in self._recipe.required if not self._made[key][name]), None)
            if missing is None:
                kept.append(key)
            elif key not in known:
                fingerprint = self._recipe[missing].fingerprint
                note = results.load_note(self._job.root, self.number, key, fingerprint)
                self._fail(Failure(key, self.number, missing, "refused", 1, note.status.reason))
        return tuple(kept)

    def _fail(self, failure: Failure) -> None:
        failures.save(self._job.root, failure, self._recipe[failure.stage].fingerprint, self._job.run)
        self.failures.append(failure)

    def _stands(self, failure: Failure) -> bool:
        """Whether a failure that was saved beside the results is still what the result says."""
        return self._made[failure.key].get(failure.stage) is False

    def _results(self) -> defaultdict[str, dict[str, bool]]:
        """What lies in `work/`, as far as it can be read; what is damaged is made again."""
        names = {stage.fingerprint: stage.name for stage in self._recipe.stages}
        made: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        for key, fingerprint in results.saved(self._job.root, self.number):
            if fingerprint in names:
                with suppress(DamagedResultError):
                    note = results.load_note(self._job.root, self.number, key, fingerprint)
                    made[key][names[fingerprint]] = note.status.present
        return made

    def _task(self, key: str, stage: Stage) -> Run:
        return Run(self.number, key, stage, self._clips[key] if stage.kind is Kind.NORMALISE else None)

    def _is_open(self, column: str) -> bool:
        return any(stage.column == column for stage in self._open)

    def _is_committed(self, stage: Stage) -> bool:
        record = columns.committed(self._job.root, self.number, stage.column)
        return record is not None and record.fingerprint == stage.fingerprint


def _reason(fault: Fault) -> str:
    """Why a modality is absent, in words that do not depend on which worker or attempt it was."""
    what = {"raised": fault.error, "died": "the worker process died", "hung": "it did not finish in time"}
    return f"failed {MAX_ATTEMPTS} times: {what.get(fault.kind, fault.error)}"
