"""The doctor on rendered truth: stored truth is perfect, corruptions only hurt, mistakes are named, nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from openuni.modalities import get as modality
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.skeleton import LAYOUTS, Skeleton
from unibench import tasks as scored
from unibench.rendering.render import modalities
from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build
from unibench.scoring.doctor import diagnose, ladders, storage

SIZE = 96
ESTIMATED = ("depth", "flow", "segmentation", "skeleton", "densepose")


def walker(seed: int) -> Skeleton:
    """Two people who walk through the frame."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(0, 9, (1, 2, 17, 2)) + np.array([[[[30, 40]], [[65, 50]]]])
    steps = np.array([2.0, 0.7]) * np.arange(6)[:, None, None, None]
    points = np.concatenate([shape + steps, np.ones((6, 2, 17, 1))], axis=-1).astype(np.float32)
    points[0, 1, 3] = (np.nan, np.nan, 0)
    boxes = np.concatenate([np.nanmin(points[..., :2], 2), np.nanmax(points[..., :2], 2)], -1)
    return Skeleton(points, boxes, np.arange(2, dtype=np.int32), SIZE, SIZE)


def surface(seed: int) -> DensePose:
    """Two bodies of stripes, one part a stripe, that move to the right."""
    rng = np.random.default_rng(seed)
    values = np.zeros((6, SIZE, SIZE, 4), np.uint8)
    for person, left in ((1, 8), (2, 48)):
        parts = rng.permutation(24)[:12] + 1
        for t in range(6):
            for k, part in enumerate(parts):
                values[t, 10 + 6 * k : 16 + 6 * k, left + 3 * t : left + 3 * t + 22] = (part, 10 * k, 5 * k, person)
    return DensePose(values)


@pytest.fixture(scope="module")
def truths() -> dict[str, list[Any]]:
    families = ("fall", "collide", "projectile", "fly")
    made = [modalities(trace(build(Spec(f, 3 + k, frames=6, height=SIZE, width=SIZE)))) for k, f in enumerate(families)]
    return {
        "depth": [m.depth for m in made],
        "flow": [m.flow for m in made],
        "segmentation": [m.segmentation for m in made],
        "skeleton": [walker(k) for k in range(4)],
        "densepose": [surface(k) for k in range(4)],
    }


@pytest.mark.parametrize("task", ESTIMATED)
def test_exact_truth_against_stored_truth_is_perfect_to_the_stored_precision(truths: Any, task: str) -> None:
    for true in truths[task]:
        check = storage(task, true)
        assert check.ok, check
        if task not in ("depth", "flow"):
            assert check.error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("task", ESTIMATED)
def test_stronger_corruption_is_a_worse_score(truths: Any, task: str) -> None:
    seen = 0
    for true in truths[task]:
        for ladder in ladders(task, true):
            seen += 1
            assert ladder.ok, ladder
            assert ladder.errors[0] == pytest.approx(0, abs=1e-6)
    assert seen == 2 * len(truths[task])


@pytest.mark.parametrize("task", ESTIMATED)
def test_nothing_is_named_in_a_right_prediction(truths: Any, task: str) -> None:
    for strength in (0, 1):
        pairs = []
        for k, true in enumerate(truths[task]):
            found = true
            if strength:  # an honest estimate: the second step of the first corruption
                corruption = next(iter(scored.get_estimated(task).corruptions.values()))
                found = corruption.apply(true, corruption.steps[1], np.random.default_rng(k))
            pairs.append((found, true))
        assert diagnose(task, pairs) is None


def late(task: str) -> Callable[[Any], Any]:
    """Frame t shows what was at t − 1; the first frame is shown twice."""

    def shift(value: Any) -> Any:
        arrays = {
            "depth": "values",
            "flow": "forward",
            "segmentation": "ids",
            "skeleton": "keypoints",
            "densepose": "values",
        }
        name = arrays[task]
        array = getattr(value, name)
        return replace(value, **{name: np.concatenate([array[:1], array[:-1]])})

    return shift


def radial(depth: Depth) -> Depth:
    _, height, width = depth.values.shape
    y, x = np.mgrid[0:height, 0:width]
    ray = np.hypot((x + 0.5 - width / 2), (y + 0.5 - height / 2)) / (0.85 * width)
    return replace(depth, values=(depth.values * np.sqrt(1 + ray**2)).astype(np.float32))


def flipped_flow(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Flow], Flow]:
    return lambda flow: Flow(change(flow.forward).astype(np.float32), flow.occluded)


def swapped_sides(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, keypoints=skeleton.keypoints[:, :, LAYOUTS["coco17"].mirrored])


def other_parts(pose: DensePose) -> DensePose:
    values = pose.values.copy()
    part = values[..., 0].astype(int)
    # 3…24 go in pairs of right and left, 1 and 2 are the trunk
    values[..., 0] = np.where(part < 3, part, np.where(part % 2 == 1, part + 1, part - 1))
    return replace(pose, values=values)


MISTAKES: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("depth", "given as disparity", lambda d: Depth((1 / d.values), "relative")),
    ("depth", "near and far", lambda d: Depth(-1 / d.values, "affine_disparity")),
    ("depth", "centimetres", lambda d: replace(d, values=d.values * 100)),
    ("depth", "millimetres", lambda d: replace(d, values=d.values * 1000)),
    ("depth", "radial", radial),
    ("flow", "opposite sign", flipped_flow(np.negative)),
    ("flow", "rows and columns", flipped_flow(lambda f: f[..., ::-1])),
    ("flow", "y points up", flipped_flow(lambda f: f * [1, -1])),
    ("flow", "x points left", flipped_flow(lambda f: f * [-1, 1])),
    ("flow", "widths and heights where", flipped_flow(lambda f: f / SIZE)),
    ("flow", "half widths", flipped_flow(lambda f: f / SIZE * 2)),
    ("segmentation", "rows and columns", lambda s: replace(s, ids=np.ascontiguousarray(s.ids.transpose(0, 2, 1)))),
    ("skeleton", "left and right", swapped_sides),
    ("skeleton", "rows and columns", lambda s: replace(s, keypoints=s.keypoints[..., [1, 0, 2]])),
    (
        "skeleton",
        "0…1",
        lambda s: replace(s, keypoints=s.keypoints / np.float32([SIZE, SIZE, 1]), boxes=s.boxes / SIZE),
    ),
    ("densepose", "left and right", other_parts),
    ("densepose", "mirrored", lambda d: replace(d, values=np.ascontiguousarray(d.values[:, :, ::-1]))),
    *((task, "mirrored", modality(task).flip) for task in ("depth", "flow", "segmentation", "skeleton")),
    *((task, "one frame late", late(task)) for task in ESTIMATED),
]


@pytest.mark.parametrize(("task", "words", "make"), MISTAKES, ids=[f"{t}: {w}" for t, w, _ in MISTAKES])
def test_a_mistaken_convention_is_named(truths: Any, task: str, words: str, make: Callable[[Any], Any]) -> None:
    finding = diagnose(task, [(make(true), true) for true in truths[task]])
    assert finding is not None
    assert words in str(finding)


def _estimate(task: str, true: Any, seed: int) -> Any:
    """A right prediction with an error of its own: 4 % of the depth, .05 px of the flow, 1 px of each joint."""
    rng = np.random.default_rng(seed)
    if task == "depth":
        return replace(true, values=(true.values * rng.lognormal(0, 0.04, true.values.shape)).astype(np.float32))
    if task == "flow":
        return Flow((true.forward + rng.normal(0, 0.05, true.forward.shape)).astype(np.float32), true.occluded)
    if task == "skeleton":
        points = true.keypoints.copy()
        points[..., :2] += rng.normal(0, 1, points[..., :2].shape)
        return replace(true, keypoints=points)
    raise ValueError(task)


_ESTIMATED = [mistake for mistake in MISTAKES if mistake[0] in ("depth", "flow", "skeleton")]


@pytest.mark.parametrize(("task", "words", "make"), _ESTIMATED, ids=[f"{t}: {w}" for t, w, _ in _ESTIMATED])
def test_a_mistaken_convention_is_named_in_an_imperfect_prediction(
    truths: Any, task: str, words: str, make: Callable[[Any], Any]
) -> None:
    estimates = [_estimate(task, true, k) for k, true in enumerate(truths[task])]
    assert diagnose(task, list(zip(estimates, truths[task], strict=True))) is None
    finding = diagnose(task, [(make(found), true) for found, true in zip(estimates, truths[task], strict=True)])
    assert finding is not None
    assert words in str(finding)
