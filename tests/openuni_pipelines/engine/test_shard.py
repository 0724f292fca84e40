"""Recipes, and what a fault of each kind costs a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import pytest

from openuni import experts, registry
from openuni.errors import OpenUniError, PlanError
from openuni.experts import sets
from openuni.sample import Clip
from openuni.shards import failures, layout, results
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine.executors import Fault, Finished, InProcess
from openuni_pipelines.engine.recipe import Kind, recipe
from openuni_pipelines.engine.shard import ShardBuild
from openuni_pipelines.engine.stages import MAX_ATTEMPTS, Job, Run, Task, Worker

pytestmark = pytest.mark.usefixtures("toys")
RGB = "rgb-1-0"


def is_due(task: Task | None, kind: Kind) -> TypeGuard[Run]:
    return isinstance(task, Run) and task.stage.kind is kind


def test_dependencies_come_first_and_contradictions_are_refused() -> None:
    assert [expert.name for expert in recipe(["toy_boxes", "dis"], [], RGB).experts] == [
        "toy_finder",
        "toy_boxes",
        "dis",
    ]
    with pytest.raises(PlanError, match="both make thermal"):
        recipe(["toy_boxes", "toy_thermal"], [], RGB)
    with pytest.raises(PlanError, match="no chosen expert makes"):
        recipe(["dis"], ["depth"], RGB)
    with pytest.raises(OpenUniError, match="there is no"):
        recipe(["nobody"], [], RGB)


@pytest.mark.parametrize("set_", sets.SETS)
def test_any_expert_may_take_the_place_of_a_sets_own(set_: str) -> None:
    """`light,raft_large` was refused: segmentation asked for one flow by name."""
    chosen = [name for name in registry.names("experts") if not name.startswith("toy_") and experts.get(name).modality]
    assert len(chosen) > 20
    for name in chosen:
        made = recipe(sets.expand([set_, name]), [], RGB)
        assert made.maker(str(experts.get(name).modality)).name == name


def test_what_is_read_comes_first_whoever_makes_it() -> None:
    made = recipe(sets.expand(["scores", "light", "rife_dis"]), [], RGB)
    names = [stage.name for stage in made.stages]
    assert names.index("rife_dis") < names.index("mediapipe_segmentation") < names.index("scores")
    assert "dis" not in names
    assert made["mediapipe_segmentation"].needs == ("rgb", "people", "rife_dis")
    assert made["mediapipe_segmentation"].optional == ("rife_dis",)
    alone = recipe(["mediapipe_segmentation"], [], RGB)
    assert alone.columns["segmentation"] == experts.get("mediapipe_segmentation").fingerprint()
    assert alone.columns["segmentation"] != made.columns["segmentation"]
    added = recipe(["mediapipe_segmentation"], [], RGB, {"flow": made.columns["flow"]})
    assert added["flow"].kind is Kind.STORED
    assert added.columns["segmentation"] == made.columns["segmentation"]


@pytest.fixture
def shard(tmp_path: Path, make_clips) -> ShardBuild:  # type: ignore[no-untyped-def]  # the fixture's own type is long
    folder = make_clips(tmp_path / "v", ["a"])
    made = recipe(["toy_depth"], [], RGB)
    job = Job(tmp_path / "d", "run", made, Normalisation(), Limits())
    return ShardBuild(job, 0, [Clip("a", str(folder / "a.mp4"))])


def test_a_worker_lost_with_its_node_never_counts_and_deaths_do(shard: ShardBuild, tmp_path: Path) -> None:
    task = shard.due()
    assert is_due(task, Kind.NORMALISE)
    Worker(shard._job).run(task)
    assert shard.finished(Finished(task, Worker(shard._job).run(task)))
    for _ in range(7):
        task = shard.due()
        assert is_due(task, Kind.ANNOTATE)
        assert not shard.finished(Finished(task, Fault("lost", "the node is gone")))
    for attempt in (1, 2, 3):
        task = shard.due()
        assert is_due(task, Kind.ANNOTATE)
        assert shard.finished(Finished(task, Fault("died", "the worker process died"))) == (attempt == 3)
    (failure,) = shard.failures
    assert (failure.key, failure.stage, failure.kind, failure.attempts) == ("a", "toy_depth", "died", 3)
    assert failures.saved(tmp_path / "d", 0) == [failure]
    assert shard.idle
    assert shard.commits()
    commit = shard.due()
    assert commit is not None
    assert (commit.stage.kind, commit.stage.column, commit.keys) == (Kind.COMMIT, "rgb", ("a",))


def test_what_a_task_needs_and_is_damaged_is_made_again_before_it(tmp_path: Path, make_clips) -> None:  # type: ignore[no-untyped-def]
    """RGB and the findings are damaged between their making and their use; the clip is not blamed for it."""
    folder = make_clips(tmp_path / "v", ["a"])
    made = recipe(["toy_boxes"], [], RGB)
    job = Job(tmp_path / "d", "run", made, Normalisation(), Limits())
    shard, worker = ShardBuild(job, 0, [Clip("a", str(folder / "a.mp4"))]), InProcess(job)
    order: list[tuple[str, str]] = []
    damaged = {"rgb", "toy_finder"}
    while (task := shard.due()) is not None:
        worker.submit(task)
        (finished,) = worker.wait()
        name = task.stage.name
        order.append((name, finished.result.kind if isinstance(finished.result, Fault) else "done"))
        if name in damaged and order[-1][1] == "done":
            damaged.remove(name)
            path = tmp_path / "d" / layout.result_name(0, "a", task.stage.fingerprint)
            path.write_bytes(path.read_bytes()[:1600])
        assert shard.finished(finished) == (order[-1][1] == "done")
    assert order == [
        ("rgb", "done"),
        ("toy_finder", "damaged"),
        ("rgb", "done"),
        ("toy_finder", "done"),
        ("toy_boxes", "damaged"),
        ("toy_finder", "done"),
        ("toy_boxes", "done"),
    ]
    assert shard.idle
    assert shard.failures == []


@pytest.mark.parametrize(
    ("optional", "required", "asked"),
    [((), (), False), (("toy_finder",), (), True), (("toy_finder",), ("toy_finder",), False)],
)
def test_what_an_expert_can_do_without_is_waited_for_and_may_be_absent(
    tmp_path: Path,
    make_clips,  # type: ignore[no-untyped-def]
    optional: tuple[str, ...],
    required: tuple[str, ...],
    asked: bool,
) -> None:
    """Where a clip is dropped without it, nothing more is made of the clip."""
    folder = make_clips(tmp_path / "v", ["nobox-a"])
    made = recipe(["toy_boxes"], [], RGB)
    rgb, finder, boxes = made.stages
    stages = (rgb, finder, replace(boxes, optional=optional))
    job = Job(
        tmp_path / "d", "run", replace(made, stages=stages, required=("rgb", *required)), Normalisation(), Limits()
    )
    shard, worker = ShardBuild(job, 0, [Clip("nobox-a", str(folder / "nobox-a.mp4"))]), Worker(job)
    order = []
    while isinstance(task := shard.due(), Run):
        order.append(task.stage.name)
        if task.stage.name == "toy_boxes":
            break  # a toy cannot do without; that it is asked is enough
        shard.finished(Finished(task, worker.run(task)))
    assert order == ["rgb", "toy_finder", *(["toy_boxes"] if asked else [])]


def test_a_disk_that_damages_every_result_ends_the_run(shard: ShardBuild) -> None:
    damaged = Fault("damaged", "the file is not as it was written", "a", RGB)
    for _ in range(MAX_ATTEMPTS):
        task = shard.due()
        assert is_due(task, Kind.NORMALISE)
        shard.finished(Finished(task, Worker(shard._job).run(task)))
        task = shard.due()
        assert is_due(task, Kind.ANNOTATE)
        assert not shard.finished(Finished(task, damaged))
    task = shard.due()
    assert is_due(task, Kind.NORMALISE)
    shard.finished(Finished(task, Worker(shard._job).run(task)))
    task = shard.due()
    assert is_due(task, Kind.ANNOTATE)
    with pytest.raises(OpenUniError, match="made again 3 times: check the disk"):
        shard.finished(Finished(task, damaged))


def test_a_saved_failure_counts_only_while_the_result_agrees(shard: ShardBuild, tmp_path: Path) -> None:
    """A kill between a failure's two files, or a retry that went well, must not leave a row behind."""
    job, depth = shard._job, shard._recipe["toy_depth"]
    failure = failures.Failure("a", 0, "toy_depth", "died", 3, "x")
    failures.save(job.root, failure, depth.fingerprint, "run")
    clips = list(shard._clips.values())
    assert ShardBuild(job, 0, clips).failures == []
    Worker(job).save_absent(Run(0, "a", depth), "failed")
    assert ShardBuild(job, 0, clips).failures == [failure]
    assert results.exists(job.root, 0, "a", depth.fingerprint)
