"""Colour-coded pictures of views are read back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni_model.colours import from_picture, prompt, to_picture
from openuni_model.config import preset

THEIRS = preset("nano", pictures="unityvideo")


def test_depth_comes_back_from_warm_and_cold() -> None:
    near = np.linspace(0, 1, 2 * 12 * 16, dtype=np.float32).reshape(2, 12, 16)
    picture = to_picture("depth", Depth(near, "affine_disparity"), THEIRS)
    assert picture[-1, -1, -1, 0] > picture[-1, -1, -1, 2]  # near is warm
    back = from_picture("depth", picture, THEIRS)
    assert back.kind == "affine_disparity"
    np.testing.assert_allclose(back.values, near, atol=0.01)


def test_flow_comes_back_from_hue_and_saturation_but_for_its_scale() -> None:
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-np.pi, np.pi, (1, 12, 16)), rng.uniform(0.3, 3, (1, 12, 16))
    forward = (np.stack([np.cos(angle), np.sin(angle)], -1) * speed[..., None]).astype(np.float32)
    back = from_picture("flow", to_picture("flow", Flow(forward), THEIRS), THEIRS).forward
    slow = speed < 2.5  # the fastest hundredth is darkened
    scale = float((back[slow] * forward[slow]).sum() / np.square(forward[slow]).sum())
    np.testing.assert_allclose(back[slow] / scale, forward[slow], atol=0.12)


def test_other_models_have_their_own_pictures_and_prompts() -> None:
    assert prompt("depth", preset("nano")) != prompt("depth", THEIRS)
    depth = Depth(np.full((1, 4, 4), 2, np.float32), "metric")
    assert np.ptp(to_picture("depth", depth, preset("nano")), axis=-1).max() == 0  # grey
