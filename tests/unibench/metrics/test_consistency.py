"""Agreement of views: slow loops, and rendered scenes whose views agree by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.metrics.consistency import (
    Camera,
    ConsistencyMetric,
    Views,
    depth_along_flow,
    follow,
    ids_along_flow,
    rigid_disagreement,
    rigid_flow,
    warp_errors,
)
from unibench.rendering.render import modalities, render_scene
from unibench.scenes.families import Spec


def test_whole_pixel_warps_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 9, 11, 3), dtype=np.uint8)
    motion = rng.integers(-3, 4, (2, 9, 11, 2)).astype(np.float32)
    hidden = rng.random((2, 9, 11)) < 0.2
    ids = rng.integers(0, 3, (3, 9, 11)).astype(np.int32)
    depth = rng.uniform(1, 9, (3, 9, 11)).astype(np.float32)
    flow = Flow(motion, hidden)
    followed, still = warp_errors(frames, flow)
    along, shares = depth_along_flow(Depth(depth, "relative"), flow), ids_along_flow(Segmentation(ids, ()), flow)
    for t in range(2):
        warp, stay, change, same = [], [], [], []
        for y in range(9):
            for x in range(11):
                u, v = x + int(motion[t, y, x, 0]), y + int(motion[t, y, x, 1])
                if hidden[t, y, x] or not (0 <= u < 11 and 0 <= v < 9):
                    continue
                warp.append(np.abs(frames[t, y, x].astype(float) - frames[t + 1, v, u]).mean())
                stay.append(np.abs(frames[t, y, x].astype(float) - frames[t + 1, y, x]).mean())
                change.append(math.log(depth[t + 1, v, u]) - math.log(depth[t, y, x]))
                if ids[t, y, x]:
                    same.append(ids[t + 1, v, u] == ids[t, y, x])
        assert followed[t] == pytest.approx(np.mean(warp) / 255, rel=1e-5)  # frames are warped in float32
        assert still[t] == pytest.approx(np.mean(stay) / 255, rel=1e-5)
        assert along[t] == pytest.approx(np.abs(np.array(change) - np.median(change)).mean(), rel=1e-5)
        assert shares[t] == np.mean(same)


def test_rigid_flow_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(2, 9, (6, 8))
    intrinsics = np.tile(np.array([[7.0, 0, 4], [0, 8, 3], [0, 0, 1]]), (2, 1, 1))
    poses = np.tile(np.eye(4), (2, 1, 1))
    angle = 0.1
    poses[1, :3, :3] = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    poses[1, :3, 3] = (0.3, -0.1, 0.2)
    flow = rigid_flow(depth, Camera(intrinsics, poses), 0)
    for y in range(6):
        for x in range(8):
            point = np.linalg.inv(intrinsics[0]) @ [x + 0.5, y + 0.5, 1.0] * depth[y, x]
            world = poses[0] @ np.r_[point, 1]
            there = intrinsics[1] @ (np.linalg.inv(poses[1]) @ world)[:3]
            assert flow[y, x] == pytest.approx(there[:2] / there[2] - [x + 0.5, y + 0.5], rel=1e-9, abs=1e-12)


def test_rendered_views_agree_and_wrong_ones_do_not() -> None:
    rendered = render_scene(Spec("collide", 3, frames=6, height=96, width=96))
    values = modalities(rendered.truth)
    camera = Camera(rendered.truth.camera.intrinsics, rendered.truth.camera.pose)
    right = ConsistencyMetric().update("k", Views(rendered.rgb, values.flow, values.depth, values.segmentation, camera))
    wrong_flow = Flow(-values.flow.forward, values.flow.occluded)
    wrong = ConsistencyMetric().update("k", Views(rendered.rgb, wrong_flow, values.depth, values.segmentation, camera))
    assert right["warp_error"].value < wrong["warp_error"].value
    assert right["warp_gain"].value > 0 > wrong["warp_gain"].value
    assert right["ids_along_flow"].value > 0.95 > wrong["ids_along_flow"].value
    assert right["depth_along_flow"].value < wrong["depth_along_flow"].value
    assert right["rigid_disagreement"].value < 1e-3
    moved = Camera(camera.intrinsics, np.roll(camera.pose, 1, axis=0))
    moved.pose[:, 0, 3] += 0.1 * np.arange(6)
    assert np.mean(rigid_disagreement(values.depth, values.flow, moved)) > 0.1


def test_one_frame_and_nothing_followed_are_undefined() -> None:
    one = Views(np.zeros((1, 4, 4, 3), np.uint8), Flow(np.zeros((0, 4, 4, 2), np.float32)))
    assert all(math.isnan(score.value) for score in ConsistencyMetric().update("k", one).values())
    away = Views(np.zeros((2, 4, 4, 3), np.uint8), Flow(np.full((1, 4, 4, 2), 99, np.float32)))
    scores = ConsistencyMetric().update("k", away)
    assert math.isnan(scores["warp_error"].value)
    assert scores["followed"].value == 0
    assert not follow(np.full((2, 2, 2), np.nan), None)[2].any()


def test_affine_disparity_is_not_judged_and_other_sizes_are_refused() -> None:
    flow = Flow(np.zeros((1, 4, 4, 2), np.float32))
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    affine = Depth(np.ones((2, 4, 4), np.float32), "affine_disparity")
    assert math.isnan(ConsistencyMetric().update("k", Views(frames, flow, affine))["depth_along_flow"].value)
    ids = Segmentation(np.zeros((2, 4, 5), np.int32), (Instance(1, "x"),))
    with pytest.raises(InvalidAnnotationError, match="segmentation"):
        ConsistencyMetric().update("k", Views(frames, flow, None, ids))
