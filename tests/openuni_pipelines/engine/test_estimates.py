"""Scores of estimates while training, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni_pipelines.engine.estimates import score_estimate


def test_an_affine_disparity_is_aligned_to_depth_or_to_an_experts_disparity() -> None:
    depth = np.linspace(1, 5, 2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    estimate = Depth(3 / depth - 0.5, "affine_disparity")
    assert score_estimate("depth", estimate, Depth(depth, "metric"))["absrel"] == pytest.approx(0, abs=1e-5)
    assert score_estimate("depth", estimate, Depth(1 / depth, "affine_disparity"))["absrel"] < 1e-4
    constant = Depth(np.zeros_like(depth), "affine_disparity")
    assert score_estimate("depth", constant, Depth(depth, "metric"))["absrel"] > 0.2


def test_flow_and_segmentation() -> None:
    zeros = np.zeros((1, 4, 4, 2), np.float32)
    assert score_estimate("flow", Flow(zeros + 3), Flow(zeros))["epe"] == pytest.approx(3 * 2**0.5)
    true, half = np.zeros((1, 4, 4), np.int32), np.zeros((1, 4, 4), np.int32)
    true[:, :, :2], half[:, :2, :2] = 1, 1
    masks = [Segmentation(ids, (Instance(1, name),)) for ids, name in ((half, "object"), (true, "person"))]
    assert score_estimate("segmentation", *masks)["miou"] == pytest.approx(0.5)
    assert score_estimate("skeleton", None, None) == {}
