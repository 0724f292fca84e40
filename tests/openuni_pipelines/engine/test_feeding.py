"""A card's worker holds several clips: the same bytes as one after another, and a crash accuses none but the guilty."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import openuni
from openuni import experts
from openuni.experts import DecodedClip
from openuni.sample import Annotation, Clip
from openuni.shards import failures, layout, results
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine.recipe import recipe
from openuni_pipelines.engine.stages import Job, Run, Worker

Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("toys")
CARD = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 1, "CPU": 2}'}
"""One card that Ray counts and nobody has: the toy works without."""


@pytest.fixture
def stored(make_clips: Callable[..., Path], tmp_path: Path) -> Callable[[str], Worker]:
    """`stored(name)`: a worker of the folder `name`, in which the RGB of four clips lies."""
    names = ["a", "b", "c", "d"]
    folder = make_clips(tmp_path / "v", names)

    def make(name: str) -> Worker:
        made = recipe(["toy_card"], [], "rgb-1-0")
        worker = Worker(Job(tmp_path / name, "run", made, Normalisation(), Limits()))
        results.open_work(worker.job.root, 0)
        for key in names:
            worker.run(Run(0, key, made["rgb"], Clip(key, str(folder / f"{key}.mp4"))))
        return worker

    return make


def annotate(worker: Worker, threads: int) -> dict[str, bytes]:
    """The bytes of the results by clip, made by so many threads."""
    stage = worker.job.recipe["toy_card"]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(worker.run, [Run(0, key, stage) for key in "abcd"]))
    return {key: (worker.job.root / layout.result_name(0, key, stage.fingerprint)).read_bytes() for key in "abcd"}


@pytest.mark.parametrize("concurrent", [False, True])
def test_threads_make_the_same_bytes_and_enter_only_an_expert_that_takes_turns_itself(
    stored: Callable[[str], Worker], monkeypatch: pytest.MonkeyPatch, concurrent: bool
) -> None:
    alone = annotate(stored("one"), 1)
    toy = experts.get("toy_card")
    inside, together, setups = Counter[str](), [], []
    annotate_alone = toy.annotate
    meet = threading.Barrier(4) if concurrent else None

    def watched(self: experts.Expert, clip: DecodedClip) -> Annotation[object]:
        inside["now"] += 1
        together.append(inside["now"])
        if meet is not None:
            meet.wait(timeout=60)  # all four are inside at once, or this breaks
        time.sleep(0.01)
        inside["now"] -= 1
        return annotate_alone(self, clip)

    monkeypatch.setattr(toy, "concurrent", concurrent)
    monkeypatch.setattr(toy, "annotate", watched)
    monkeypatch.setattr(toy, "setup", lambda self: setups.append(self))
    assert annotate(stored("four"), 4) == alone
    assert len(setups) == 1
    assert concurrent or together == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_card_with_full_hands_builds_the_very_shards_of_one_clip_after_another(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    folder = make_clips(tmp_path / "v", [f"c{number:02d}" for number in range(10)])
    assert build(folder, tmp_path / "one", "toy_card,toy_depth").returncode == 0
    done = build(folder, tmp_path / "d", "toy_card,toy_depth", ray=True, env=CARD)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "d") == digests(tmp_path / "one")


@pytest.mark.slow
def test_of_the_clips_in_a_dead_workers_hands_only_the_one_that_kills_it_alone_is_blamed(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, calls: Callable[[], list[str]]
) -> None:
    innocent = [f"c{number:02d}" for number in range(6)]
    folder = make_clips(tmp_path / "v", [*innocent, "segfault-1", "hang-1"])
    env = CARD | {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    done = build(folder, tmp_path / "d", "toy_card", "--time-limit", 10, ray=True, env=env)
    assert done.returncode == 3, done.stderr
    rows = {row.key: (row.kind, row.attempts) for row in failures.read(tmp_path / "d")}
    assert rows == {"segfault-1": ("died", 3), "hang-1": ("hung", 3)}
    assert {sample.key for sample in openuni.open(str(tmp_path / "d")) if "thermal" in sample} == set(innocent)
    # Once among others, and three times alone.
    assert Counter(calls())["toy_card segfault-1"] in (3, 4)
    assert "each is tried again alone" in (tmp_path / "d" / layout.LOG).read_text()
