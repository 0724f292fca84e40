"""The colours in which pictures tell things apart: 64 for the model, and back; any number for people."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

_LEVELS = 4
COLOURS = _LEVELS**3 - 1
"""How many things can be told apart: all colours but black, the background."""


@cache
def palette() -> npt.NDArray[np.float32]:
    """`[64, 3]` in [0, 1], black first: every combination of 0, ⅓, ⅔ and 1.

    Each colour is the farthest from all before it (the first in order among equals), so a picture of few things has
    the most different colours.
    """
    lattice = np.stack(np.meshgrid(*[np.arange(_LEVELS)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    order = [0]
    distance = ((lattice - lattice[0]) ** 2).sum(axis=1)
    while len(order) < len(lattice):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, ((lattice - lattice[order[-1]]) ** 2).sum(axis=1))
    colours = lattice[order].astype(np.float32) / np.float32(_LEVELS - 1)
    colours.setflags(write=False)
    return colours


_SAFE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito, Color Universal Design (2008): told apart with any colour vision."""


def for_people(count: int) -> npt.NDArray[np.uint8]:
    """`[count, 3]` for numbers from 0, which is dark grey, the background: the first seven are told apart without full
    colour vision too; further ones have hues far from each other.

    Example:
        >>> for_people(3).tolist()
        [[40, 40, 40], [230, 159, 0], [86, 180, 233]]
    """
    numbers = np.arange(count)
    hue = numbers * 0.6180339887 % 1 * 179  # the golden ratio spreads any number of hues
    hsv = np.stack([hue, np.full(count, 150), np.where(numbers % 2, 255, 190)], axis=-1)
    colours = np.asarray(cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0], np.uint8)
    known = np.array([(40, 40, 40), *_SAFE], np.uint8)[:count]
    colours[: len(known)] = known
    return colours


def nearest_colour(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Index into `palette()` of each pixel of `[…, 3]`: right wherever every channel is off by less than ⅙."""
    index_of = np.empty(_LEVELS**3, np.uint8)
    index_of[_lattice_code(palette())] = np.arange(_LEVELS**3)
    return index_of[_lattice_code(picture)]


def _lattice_code(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    levels = np.rint(np.clip(colours, 0, 1) * (_LEVELS - 1)).astype(np.intp)
    return (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
