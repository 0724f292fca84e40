"""Recipes, and what a fault of each kind costs a clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from openuni.errors import OpenUniError, PlanError
from openuni.sample import Clip
from openuni.shards import failures, results
from openuni.video import Limits, Normalisation
from openuni_pipelines.executors import Fault, Finished
from openuni_pipelines.shard_build import ShardBuild, recipe
from openuni_pipelines.tasks import Annotate, Commit, Job, Normalise, Worker

pytestmark = pytest.mark.usefixtures("toys")


def test_dependencies_come_first_and_contradictions_are_refused() -> None:
    assert [expert.name for expert in recipe(["toy_boxes", "dis"], []).experts] == ["toy_finder", "toy_boxes", "dis"]
    with pytest.raises(PlanError, match="both make thermal"):
        recipe(["toy_boxes", "toy_thermal"], [])
    with pytest.raises(PlanError, match="no chosen expert makes"):
        recipe(["dis"], ["depth"])
    with pytest.raises(OpenUniError, match="there is no"):
        recipe(["nobody"], [])


@pytest.fixture
def shard(tmp_path: Path, make_clips) -> ShardBuild:  # type: ignore[no-untyped-def]  # the fixture's own type is long
    folder = make_clips(tmp_path / "v", ["a"])
    made = recipe(["toy_depth"], [])
    prints = {"rgb": "rgb-1-0", "toy_depth": made.experts[0].fingerprint()}
    job = Job(tmp_path / "d", "run", Normalisation(), Limits(), prints)
    return ShardBuild(job, made, 0, [Clip("a", str(folder / "a.mp4"))])


def test_a_worker_lost_with_its_node_never_counts_and_deaths_do(shard: ShardBuild, tmp_path: Path) -> None:
    task = shard.due()
    assert isinstance(task, Normalise)
    Worker(shard._job).run(task)
    assert shard.finished(Finished(task, Worker(shard._job).run(task)))
    for _ in range(7):
        task = shard.due()
        assert isinstance(task, Annotate)
        assert not shard.finished(Finished(task, Fault("lost", "the node is gone")))
    for attempt in (1, 2, 3):
        task = shard.due()
        assert isinstance(task, Annotate)
        assert shard.finished(Finished(task, Fault("died", "the worker process died"))) == (attempt == 3)
    (failure,) = shard.failures
    assert (failure.key, failure.stage, failure.kind, failure.attempts) == ("a", "toy_depth", "died", 3)
    assert failures.saved(tmp_path / "d", 0) == [failure]
    assert shard.idle
    assert shard.commits()
    commit = shard.due()
    assert isinstance(commit, Commit)
    assert (commit.column, commit.keys) == ("rgb", ("a",))


def test_a_saved_failure_counts_only_while_the_result_agrees(shard: ShardBuild, tmp_path: Path) -> None:
    """A kill between a failure's two files, or a retry that went well, must not leave a row behind."""
    job, made = shard._job, shard._recipe
    failure = failures.Failure("a", 0, "toy_depth", "died", 3, "x")
    failures.save(job.root, failure, job.fingerprints["toy_depth"], "run")
    clips = list(shard._clips.values())
    assert ShardBuild(job, made, 0, clips).failures == []
    Worker(job).save_absent(Annotate(0, "a", "toy_depth"), "failed")
    assert ShardBuild(job, made, 0, clips).failures == [failure]
    assert results.exists(job.root, 0, "a", job.fingerprints["toy_depth"])
