"""How a build sizes itself, and what it makes of the ways in which a worker can end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openuni.experts.base import Expert, Resources
from openuni.sample import Annotation
from openuni.shards import layout
from openuni.storage import disk_sentence
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine.executors import Fault, InProcess, _Capacity, _death, _pooled, _sized
from openuni_pipelines.engine.recipe import Kind, Recipe, Stage
from openuni_pipelines.engine.stages import Job, Run

TWO_CORES = _Capacity(cpus=2, gpus=0, memory_gib=8, node_cpus=2)


def expert(called: str, **needs: Any) -> type[Expert]:
    class Made(Expert):
        name = called
        version = 1
        modality = called
        license = "none"
        resources = Resources(**needs)

        def annotate(self, clip: Any) -> Annotation[Any]:
            raise NotImplementedError

    return Made


def sizes(*made: type[Expert], capacity: _Capacity = TWO_CORES, workers: int | None = None) -> dict[str, int]:
    return {name: pool.size for name, pool in _sized(_pooled(made), capacity, workers).items()}


def test_experts_of_one_thread_share_all_cores_whatever_memory_they_declare() -> None:
    assert sizes(expert("a", memory_gib=0.5), expert("b", memory_gib=1.5)) == {"1 threads": 2}
    assert _pooled([expert("a", memory_gib=0.5), expert("b", memory_gib=1.5)])["1 threads"].memory_gib == 3.0


def test_little_memory_makes_fewer_workers_and_workers_bounds_them() -> None:
    assert sizes(expert("a", memory_gib=6)) == {"1 threads": 1}
    assert sizes(expert("a"), workers=1) == {"1 threads": 1}


def test_no_pool_is_empty_and_none_asks_for_more_than_a_node_has() -> None:
    made = _pooled([expert("a", cpus=4), expert("b", cpus=2)])
    pools = _sized(made, _Capacity(cpus=6, gpus=0, memory_gib=64, node_cpus=2), None)
    assert {name: pool.size for name, pool in pools.items()} == {"1 threads": 2, "4 threads": 1, "2 threads": 1}
    assert max(pool.share for pool in pools.values()) <= 2
    assert sum(pool.size * pool.share for pool in pools.values()) <= 6


def test_gpu_experts_have_pools_of_their_own_sized_by_the_cards() -> None:
    capacity = _Capacity(cpus=16, gpus=4, memory_gib=128, node_cpus=16)
    made = (expert("big", gpus=1.0), expert("half", gpus=0.5), expert("small"))
    assert sizes(*made, capacity=capacity) == {"1 threads": 10, "big": 2, "half": 4}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The actor died because its node has died. Node Id: 5f", "lost"),
        ("The actor is temporarily unavailable: RpcError", "lost"),
        ("The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR", "died"),
        ("Task was killed due to the node running low on memory", "died"),
    ],
)
def test_a_worker_that_goes_down_with_its_node_blames_no_clip(text: str, kind: str) -> None:
    assert _death(RuntimeError(text)).kind == kind


def test_only_a_worker_that_the_memory_monitor_killed_is_said_to_have_run_out_of_memory() -> None:
    guess = "unexpectedly exits with a connection error code 2. (1) The process is killed by SIGKILL by OOM killer"
    assert _death(RuntimeError(guess)).error == "the worker process died"
    assert _death(RuntimeError("killed due to the node running low on memory")).error.endswith("(out of memory)")


def test_what_would_hit_every_clip_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(expert("broken")):  # type: ignore[misc]  # a class made on the spot
        def setup(self) -> None:
            raise RuntimeError("no such device")

    monkeypatch.setattr("openuni_pipelines.engine.stages.experts.get", lambda name: Broken)
    broken = Stage("broken", Kind.ANNOTATE, "broken", "broken-1-0")
    job = Job(tmp_path, "run", Recipe((broken,), (), ()), Normalisation(), Limits())
    here = InProcess(job)
    here.submit(Run(0, "a", broken))
    (finished,) = here.wait()
    assert finished.result == Fault("machine", "expert broken cannot be set up: RuntimeError: no such device")
    monkeypatch.setattr(here._worker, "run", lambda task: (_ for _ in ()).throw(OSError(28, "full")))
    here.submit(Run(0, "a", broken))
    assert here.wait()[0].result == Fault("machine", disk_sentence(tmp_path, OSError(28, "full")))
    assert layout.LOCK not in [path.name for path in tmp_path.iterdir()]
