"""Parallax on clips whose depth and camera are known: two textured walls, one near and one far."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from openuni.experts.parallax import parallax_gain

H, W, T = 96, 160, 6
NEAR, FAR = 1.0, 3.0
Frames = npt.NDArray[np.uint8]


def wall(seed: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(H, 2 * W)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(np.clip(128 + 45 * smooth / smooth.std(), 0, 255), np.float32)


def clip(near: float, far: float) -> tuple[Frames, npt.NDArray[np.float32]]:
    """Frames and their depth: the lower half is near and moves `near` pixels a frame to the left, the rest `far`."""
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(np.float32)
    frames = []
    for t in range(T):
        layers = [cv2.remap(wall(s), grid + np.float32([v * t + 20, 0]), None, 1) for s, v in ((0, far), (1, near))]
        frames.append(np.where(grid[..., 1] > H / 2, layers[1], layers[0]))
    shown = np.rint(np.stack(frames)).astype(np.uint8)[..., None].repeat(3, -1)
    depth = np.where(grid[..., 1] > H / 2, NEAR, FAR).astype(np.float32)
    return shown, np.tile(depth, (T, 1, 1))


def test_the_true_depth_explains_the_motion_and_a_wrong_one_does_not() -> None:
    frames, depth = clip(near=4.5, far=1.5)
    gain = parallax_gain(frames, depth, 16.0)
    assert gain is not None
    assert gain > 0.7
    assert gain == pytest.approx(parallax_gain(frames, 100 * depth, 16.0))  # a unit is no matter
    upright = np.tile(np.linspace(NEAR, FAR, W, dtype=np.float32), (T, H, 1))
    for wrong in (upright, np.ones_like(depth)):
        found = parallax_gain(frames, wrong, 16.0)
        assert found is not None
        assert found < 0.1
    inside_out = parallax_gain(frames, 1 / depth, 16.0)
    assert inside_out is not None
    assert inside_out < gain - 0.2


@pytest.mark.parametrize(("near", "far"), [(0.0, 0.0), (3.0, 3.0)])
def test_without_parallax_there_is_nothing_to_judge_by(near: float, far: float) -> None:
    """A camera that stands still; one that turns, by which all moves alike."""
    frames, depth = clip(near, far)
    assert parallax_gain(frames, depth, 16.0) is None


@pytest.mark.parametrize("seed", [3, 5])
def test_things_that_move_each_their_way_speak_for_no_depth(seed: int) -> None:
    """Eight tiles, each 3 pixels a frame in a direction of its own: a depth by tile once gained .13 and .16 of it."""
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(np.float32)
    tile = (grid[..., 0] // (W // 4) + 4 * (grid[..., 1] // (H // 2))).astype(int)
    ways = np.random.default_rng(seed).uniform(0, 2 * np.pi, 8)
    frames = np.zeros((T, H, W), np.float32)
    for t, (k, way) in itertools.product(range(T), enumerate(ways)):
        step = 3 * t * np.array([np.cos(way), np.sin(way)], np.float32)
        at = (grid + 20 + step) % np.array([2 * W - 1, H - 1], np.float32)
        frames[t] = np.where(tile == k, cv2.remap(wall(k), at, None, cv2.INTER_LINEAR), frames[t])
    shown = np.rint(frames).astype(np.uint8)[..., None].repeat(3, -1)
    depth = np.random.default_rng(seed + 50).uniform(NEAR, FAR, 8)[tile].astype(np.float32)
    assert parallax_gain(shown, np.tile(depth, (T, 1, 1)), 16.0) == 0


def test_a_picture_and_a_depth_that_is_nowhere_known_are_not_judged() -> None:
    frames, depth = clip(4.5, 1.5)
    assert parallax_gain(frames[:1], depth[:1], 16.0) is None
    assert parallax_gain(frames, np.full_like(depth, np.nan), 16.0) is None
