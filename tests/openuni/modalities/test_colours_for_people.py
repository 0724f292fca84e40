"""The colours of maps say the same to whoever lacks red or green cones (Machado et al., IEEE TVCG 2009)."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from openuni import modalities
from openuni.modalities.depth import Depth
from openuni.modalities.palette import for_people
from unibench.tasks.drawing import agreement, heat

BLIND = {
    "nothing": np.eye(3),
    "red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
}


def seen(colours: npt.NDArray[np.uint8], blind_to: str) -> npt.NDArray[np.float32]:
    """CIELAB `[N, 3]` of RGB `[N, 3]` as they look to such an eye."""
    values = colours.astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ BLIND[blind_to].T, 0, 1)
    shown = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(shown[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]


@pytest.mark.parametrize("blind_to", BLIND)
def test_nearer_and_worse_are_lighter(blind_to: str) -> None:
    near = np.linspace(0.01, 1, 64, dtype=np.float32)
    depth = modalities.get("depth").show(Depth(near.reshape(1, 1, -1), "affine_disparity"))[0, 0]
    assert (np.diff(seen(depth, blind_to)[::4, 0]) > 1).all()
    error = heat(np.linspace(0, 1, 64)[None], 1)[0]
    assert (np.diff(seen(error, blind_to)[::4, 0]) > 0).all()


@pytest.mark.parametrize("blind_to", BLIND)
def test_seven_objects_and_the_background_are_told_apart(blind_to: str) -> None:
    colours = seen(for_people(8), blind_to)
    for a, b in itertools.combinations(range(8), 2):
        assert np.linalg.norm(colours[a] - colours[b]) > 10, (a, b)


@pytest.mark.parametrize("blind_to", BLIND)
def test_right_wrong_and_too_much_are_told_apart(blind_to: str) -> None:
    there, here = np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 1]])
    colours = seen(agreement(there, here).image[0], blind_to)
    for a, b in itertools.combinations(range(4), 2):
        assert np.linalg.norm(colours[a] - colours[b]) > 25, (a, b)
