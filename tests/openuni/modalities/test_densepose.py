"""DensePose: exact storage, the picture's stated tolerance, and mirrors that swap left and right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.body import Body, rasterise
from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.densepose import DOUBTS, PARTS, DensePose, DensePoseModality

modality = DensePoseModality()


def people(seed: int = 0, shape: tuple[int, int, int] = (2, 20, 30)) -> DensePose:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (*shape, 4)).astype(np.uint8)
    values[..., 0] = rng.integers(0, 25, shape)
    values[..., 3] = rng.integers(1, 3, shape)
    values[values[..., 0] == 0] = 0
    confidence = rng.random((shape[0], 2)).astype(np.float32)
    confidence[0, 1] = np.nan
    return DensePose(values, confidence=confidence)


def doubted() -> DensePose:
    return replace(people(), doubt=np.array([[0, 0], [0, len(DOUBTS)]], np.uint8))


def same(a: DensePose, b: DensePose) -> bool:
    both = a.confidence is not None and b.confidence is not None
    confident = np.array_equal(a.confidence, b.confidence, equal_nan=True) if both else a.confidence is b.confidence
    doubts = np.array_equal(a.doubt, b.doubt) if a.doubt is not None else b.doubt is None
    return np.array_equal(a.values, b.values) and confident and doubts and a.layout == b.layout


@pytest.mark.parametrize("value", [people(), doubted(), replace(people(), confidence=None, layout="densepose-24")])
def test_storage_is_lossless_and_gives_the_same_bytes(value: DensePose) -> None:
    encoded = modality.encode(value)
    assert same(modality.decode(Encoded(encoded.members, json.loads(json.dumps(encoded.meta)))), value)
    assert modality.encode(value) == encoded


def test_what_was_stored_before_reasons_were_is_still_read() -> None:
    encoded = modality.encode(people())
    meta = {name: number for name, number in encoded.meta.items() if name != "doubts"}
    assert same(modality.decode(Encoded(encoded.members, meta)), people())


def test_picture_gives_part_and_uv_back_within_the_stated_noise() -> None:
    value = people()
    picture = modality.to_picture(value)
    back = modality.from_picture(picture)
    assert np.array_equal(back.values[..., :3], value.values[..., :3])
    assert np.array_equal(back.values[..., 3], value.values[..., 0] > 0)
    noise = np.random.default_rng(0).uniform(-0.0165, 0.0165, picture.shape).astype(np.float32)
    noisy = modality.from_picture(picture + noise)
    modality.check(noisy)
    assert np.array_equal(noisy.values[..., 0], value.values[..., 0])
    assert np.abs(noisy.values[..., 1:3].astype(int) - value.values[..., 1:3]).max() <= 5
    strong = np.random.default_rng(0).uniform(-0.11, 0.11, picture.shape).astype(np.float32)
    assert np.array_equal(modality.from_picture(picture + strong).values[..., 0] > 0, value.values[..., 0] > 0)


def test_a_mirror_swaps_the_parts_of_left_and_right() -> None:
    swap = {"left": "right", "right": "left"}
    for part, name in enumerate(PARTS[1:], start=1):
        value = DensePose(np.tile(np.uint8([part, 30, 40, 1]), (1, 2, 3, 1)))
        mirrored = modality.flip(value).values[0, 0, 0]
        assert PARTS[mirrored[0]] == " ".join(swap.get(word, word) for word in name.split())
        turns_u, turns_v = any(word in name for word in ("hand", "foot", "head")), "torso" in name
        assert tuple(mirrored[1:]) == (225 if turns_u else 30, 215 if turns_v else 40, 1)


def test_a_symmetric_body_is_its_own_mirror_image() -> None:
    """The baked body at rest, rendered in the middle of a frame: mirroring the picture gives the same picture."""
    body = Body.load()
    vertices = body.vertices * [1, -1, -1]  # image axes: x right, y down, z into the picture
    scaled = (vertices - (vertices.min(0) + vertices.max(0)) / 2) * 100
    surface = rasterise(body, scaled + np.array([100, 100, 200]), 200, 200)
    shown = surface.part > 0
    values = np.stack([surface.part, surface.u, surface.v, shown], -1)
    value = DensePose(values[None].astype(np.uint8))
    mirrored = modality.flip(value).values[0]
    both = (mirrored[..., 0] > 0) & shown
    assert both.sum() > 0.95 * shown.sum() > 1000
    assert (mirrored[..., 0] == value.values[0, ..., 0])[both].mean() > 0.9
    same_part = both & (mirrored[..., 0] == value.values[0, ..., 0])
    error = np.abs(mirrored[..., 1:3].astype(int) - value.values[0, ..., 1:3])[same_part]
    assert error.mean() < 8


def test_charts_without_a_known_mirror_are_not_flipped() -> None:
    with pytest.raises(InvalidAnnotationError, match="mirror"):
        modality.flip(replace(people(), layout="densepose-24"))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 99))
def test_geometry_keeps_names_and_places(height: int, width: int, factor: int, seed: int) -> None:
    value = people(seed, (2, height, width))
    assert same(modality.flip(modality.flip(value)), value)
    assert same(modality.resize(modality.resize(value, height * factor, width * factor), height, width), value)
    box, mirrored = Box(0, 1, width - 1, height), Box(1, 1, width, height)
    assert same(modality.flip(modality.crop(value, box)), modality.crop(modality.flip(value), mirrored))
    taken = modality.take(value, slice(1, 2))
    assert modality.shape(taken) == (1, height, width)
    assert taken.confidence.shape == (1, 2)
    assert modality.take(doubted(), slice(1, 2)).doubt.tolist() == [[0, len(DOUBTS)]]
    modality.check(modality.resize(modality.flip(taken), 7, 5))


def test_people_see_parts_on_black() -> None:
    value = people()
    shown = modality.show(value)
    assert shown.dtype == np.uint8
    assert not shown[value.values[..., 0] == 0].any()
    assert shown[value.values[..., 0] > 0].any(axis=-1).all()


def with_pixel(*pixel: int) -> DensePose:
    values = people().values.copy()
    values[0, 0, 0] = pixel
    return replace(people(), values=values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (with_pixel(25, 0, 0, 1), "part 25"),
        (with_pixel(0, 9, 0, 0), "background"),
        (with_pixel(0, 0, 0, 1), "background"),
        (with_pixel(3, 0, 0, 0), "person 0"),
        (with_pixel(3, 0, 0, 3), "column"),
        (replace(people(), layout="smpl"), "layout"),
        (replace(people(), values=people().values[..., :3]), "4"),
        (replace(people(), confidence=np.full((2, 2), 2, np.float32)), "0 to 1"),
        (replace(people(), confidence=np.ones((3, 2), np.float32)), "confidence"),
        (replace(people(), doubt=np.full((2, 2), 6, np.uint8)), "6 is not one of 0 to 5"),
        (replace(people(), doubt=np.zeros((2, 3), np.uint8)), "doubt"),
        (replace(doubted(), confidence=None), "give confidence too"),
    ],
)
def test_nonsense_is_refused(value: DensePose, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message):
        modality.check(value)


@pytest.mark.parametrize(
    "change", [{"layout": "smpl"}, {"people": 3}, {"people": 10**6}, {"height": 21}, {"people": "2"}]
)
def test_false_numbers_are_refused(change: dict) -> None:
    encoded = modality.encode(people())
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))
