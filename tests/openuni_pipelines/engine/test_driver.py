"""The driver over actors that are none (`benchmarks/driver.py`): it ends, and looks at a task, not at all actors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import driver
from openuni.errors import OpenUniError
from openuni.sample import Clip
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine import executors
from openuni_pipelines.engine.executors import RayPools, _Slot
from openuni_pipelines.engine.recipe import recipe
from openuni_pipelines.engine.stages import Job, Run

pytestmark = pytest.mark.usefixtures("toys")


def test_the_benchmark_drives_a_shard_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", sys.modules.get("ray"))  # put back afterwards
    monkeypatch.setattr(driver, "SHARD", 8)
    row = driver.measure(tmp_path, 4, 2)
    assert (row.actors, row.tasks) == (4, 2 * (8 * 4 + 4))
    assert len(list((tmp_path / "4" / "commits").iterdir())) == 2  # RGB's, the only ones that are made there


def test_a_task_costs_no_look_at_the_other_actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every actor busy, one that ends is booked and handed the next task; the others are not looked at."""
    monkeypatch.setitem(sys.modules, "ray", driver.FakeRay(64))
    made = recipe(["toy_depth"], [], "rgb-1-0")
    job = Job(tmp_path, "run", made, Normalisation(), Limits())
    with RayPools(job, workers=None, address=None, time_limit=900.0, worker_memory_gib=None) as pools:
        for number in range(200):
            pools.submit(Run(0, f"c{number}", made["rgb"], Clip(f"c{number}", "none.mp4")))
        for _ in range(64):
            assert pools.wait() == []  # signs of life
        pools._inspected = float("inf")  # the look at all, twice a second, is not what is counted
        looks = 0
        held = _Slot.__getattribute__

        def counting(slot: _Slot, name: str) -> object:
            nonlocal looks
            looks += name == "held"
            return held(slot, name)

        monkeypatch.setattr(_Slot, "__getattribute__", counting)
        assert [
            finished.task.key for _ in range(10) for finished in pools.wait() if isinstance(finished.task, Run)
        ] == [f"c{number}" for number in range(10)]
        assert looks < 10 * 12


def test_a_machine_without_a_gpu_is_told_at_once_and_a_cluster_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = driver.FakeRay(4)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True), raising=False)
    monkeypatch.setattr(executors, "is_connected", lambda: False)
    monkeypatch.setattr(executors, "connect", lambda address: None)
    ended: list[bool] = []
    job = Job(tmp_path, "run", recipe(["toy_card"], [], "rgb-1-0"), Normalisation(), Limits())
    with pytest.raises(OpenUniError, match=r"^toy_card: a GPU is needed, .* --workers 0$"):
        RayPools(job, workers=None, address=None, time_limit=900.0, worker_memory_gib=None)
    assert ended == [True]
    with RayPools(job, workers=None, address="here:6379", time_limit=900.0, worker_memory_gib=None) as pools:
        assert pools.slots > 0
