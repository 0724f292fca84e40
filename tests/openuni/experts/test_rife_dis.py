"""RIFE's motion as the start of DIS: what is far is found, and what `dis` finds stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

import torch

from openuni import assets
from openuni.errors import AssetError
from openuni.experts.base import DecodedClip
from openuni.experts.dis import Dis
from openuni.experts.rife_dis import RifeDis, at_frame
from openuni.experts.rife_network import IFNet

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def expert(asset: Callable[[str], Path]) -> Iterator[RifeDis]:
    asset("rife")
    expert = RifeDis()
    expert.setup()
    yield expert
    expert.teardown()


def shifted(by: int) -> DecodedClip:
    """A texture of 200×300 that moves to the left."""
    noise = np.random.default_rng(0).normal(size=(200, 300 + by, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    wide = np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return DecodedClip("clip", np.stack([wide[:, :300], wide[:, by:]]), 16.0, {})


def test_a_motion_too_far_for_dis_is_found(expert: RifeDis) -> None:
    clip = shifted(45)
    errors = {}
    for each in (Dis(), expert):
        flow = each.annotate(clip).value.forward[0]
        errors[each.name] = np.median(np.linalg.norm(flow[:, 60:] - np.array([-45, 0]), axis=-1))
    assert errors["dis"] > 20
    assert errors["rife_dis"] < 0.5


def test_a_small_motion_is_as_exact_as_that_of_dis_and_trusted(expert: RifeDis) -> None:
    said = expert.annotate(shifted(4))
    assert np.abs(said.value.forward[0, 10:-10, 10:-10] - np.array([-4, 0])).mean() < 0.05
    assert said.confidence is not None
    assert said.confidence > 0.95


def test_motion_halfway_is_carried_to_the_frame() -> None:
    """Frame 0 is the middle, 10 % larger: x of the frame lies at x / 1.1 halfway."""
    places = np.stack(np.meshgrid(np.arange(50), np.arange(40)), -1).astype(np.float32)
    there = at_frame(places, np.float32(0.1) * places)
    np.testing.assert_allclose(there, places / 1.1, atol=0.04, err_msg="OpenCV samples at 32nds of a pixel")


def test_published_files_load_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What served the training alone is in the published file, too."""
    file = tmp_path / "rife.pkl"
    monkeypatch.setattr(assets, "path", lambda _: file)
    published = IFNet().state_dict() | {"teacher.conv0.0.0.bias": torch.zeros(3), "caltime.0.bias": torch.zeros(3)}
    torch.save(published, file)
    expert = RifeDis()
    expert.setup()
    flow = expert.annotate(DecodedClip("k", shifted(3).frames[:, :70, :90], 16.0, {})).value.forward
    assert flow.shape == (1, 70, 90, 2)
    torch.save({"block0.conv0.0.0.weight": torch.zeros(3)}, file)
    with pytest.raises(AssetError, match="does not fit IFNet"):
        RifeDis().setup()
