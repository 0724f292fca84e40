"""A part of a stored value is what `take` gives of the whole, and looks as it does there."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from openuni import modalities
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Instance, Objects, Segmentation
from openuni.modalities.skeleton import Skeleton

T, H, W = 37, 18, 26
RNG = np.random.default_rng(0)


def objects() -> Objects:
    lengths = RNG.integers(0, 2, (T, 2)).astype(np.int32)
    runs = np.full(int(lengths.sum()), H * W, np.uint32)
    known = np.where(lengths > 0, 4.0, np.nan)
    return Objects(known[..., None].repeat(4, -1), known, np.zeros(2, np.bool_), np.ones(2), runs, lengths)


def values() -> list[Any]:
    depth = RNG.uniform(1, 9, (T, H, W)).astype(np.float32)
    motion = RNG.normal(0, 3, (2, T - 1, H, W, 2)).astype(np.float32)
    hidden = RNG.random((T - 1, H, W)) < 0.1
    ids = RNG.integers(0, 3, (T, H, W)).astype(np.int32)
    table = (Instance(1, "cat"), Instance(2, "dog", 0.5))
    part = RNG.integers(0, 2, (T, H, W, 1)).astype(np.uint8)
    joints = np.column_stack([RNG.uniform(0, 18, (T * 17, 2)), np.ones(T * 17)]).reshape(T, 1, 17, 3).astype(np.float32)
    smooth = (np.linspace(0, 255, T)[:, None, None, None] + np.zeros((T, H, W, 3))).astype(np.uint8)
    return [
        Rgb(smooth, 16.0),
        Rgb(smooth, 30000 / 1001, exact=True),
        Depth(depth, "metric"),
        Depth(depth, "relative", exact=True),
        Flow(motion[0], hidden),
        Flow(motion[0], hidden, motion[1]),
        Flow(motion[0], hidden, exact=True),
        Segmentation(ids, table),
        Segmentation(ids, table, ids == 0, objects()),
        DensePose(part * np.array([3, 100, 200, 1], np.uint8), confidence=np.ones((T, 1), np.float32)),
        Skeleton(joints, np.ones((T, 1, 4), np.float32), np.array([1], np.int32), H, W),
    ]


def equal(one: Any, other: Any) -> bool:
    if is_dataclass(one):
        return all(equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("part", [slice(0, 1), slice(5, 21), slice(33, 35), slice(36, 37), slice(0, T)])
def test_a_part_is_taken_of_the_whole(value: Any, part: slice) -> None:
    modality = modalities.get(type(value).__name__.lower())
    encoded = modality.encode(value)
    assert equal(modality.decode_part(encoded, part), modality.take(modality.decode(encoded), part))


def test_a_part_has_the_colours_of_the_whole() -> None:
    for value in values()[2:7]:
        modality = modalities.get(type(value).__name__.lower())
        whole = modality.show(value)
        shown = modality.show_within(modality.take(value, slice(4, 9)), modality.colour_range(value))
        assert np.array_equal(shown[:4], whole[4:8])  # of a flow the last frame has no map
