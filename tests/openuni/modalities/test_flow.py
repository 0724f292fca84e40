"""Flow: storage and picture against their stated errors, geometry against known motions, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.flow import Flow, FlowModality

modality = FlowModality()


def field(seed: int = 0, shape: tuple[int, int, int] = (4, 24, 32), scale: float = 5.0) -> Flow:
    """Random truth of a clip of `shape`, with holes, both directions and both masks."""
    rng = np.random.default_rng(seed)
    maps = (shape[0] - 1, *shape[1:])
    motions = []
    for _ in range(2):
        motion = rng.uniform(-scale, scale, (*maps, 2)).astype(np.float32)
        motion[rng.random(maps) < 0.1] = np.nan
        motions.append(motion)
    return Flow(motions[0], rng.random(maps) < 0.2, motions[1], rng.random(maps) < 0.2)


def same(a: Flow, b: Flow, tolerance: float = 0.0) -> bool:
    for f in fields(Flow):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray) and x.dtype == np.float32:
            if not np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True):
                return False
        elif not np.array_equal(x, y):
            return False
    return True


@pytest.mark.parametrize("drop", [(), ("occluded",), ("backward_occluded",), ("backward", "backward_occluded")])
def test_storage_is_within_a_32nd_of_a_pixel_and_keeps_masks(drop: tuple[str, ...]) -> None:
    value = replace(field(), **dict.fromkeys(drop))
    assert same(modality.decode(modality.encode(value)), value, tolerance=1 / 32)
    exact = replace(value, exact=True)
    assert same(modality.decode(modality.encode(exact)), exact)


def test_a_clip_of_one_frame_has_no_maps_but_is_stored() -> None:
    value = Flow(np.zeros((0, 4, 6, 2), np.float32), np.zeros((0, 4, 6), bool))
    assert modality.shape(value) == (1, 4, 6)
    assert same(modality.decode(modality.encode(value)), value)
    assert modality.to_picture(value).shape == (1, 4, 6, 3)
    assert modality.show(value).shape == (1, 4, 6, 3)
    assert same(modality.take(field(), slice(2, 3)), replace(modality.take(field(), slice(2, 3))))


@pytest.mark.parametrize(
    ("largest", "error"), [(0.01, 1 / 32), (255.95, 1 / 32), (2046.9, 1 / 32), (2048.5, 1 / 16), (9000.0, 1 / 4)]
)
def test_motion_is_rounded_more_coarsely_only_beyond_2047_px(largest: float, error: float) -> None:
    forward = np.random.default_rng(0).uniform(-largest, largest, (1, 2, 4096, 2)).astype(np.float32)
    forward[0, 0, 0] = -largest, largest
    back = modality.decode(modality.encode(Flow(forward))).forward
    worst = np.abs(back - forward).max()
    assert worst <= error
    assert worst > error / 4 or largest < 1


def test_all_unknown_flow_is_stored() -> None:
    value = Flow(np.full((2, 3, 3, 2), np.nan, np.float32))
    assert same(modality.decode(modality.encode(value)), value)
    assert not modality.show(value).any()


def test_the_same_value_gives_the_same_bytes() -> None:
    for exact in (False, True):
        assert modality.encode(replace(field(), exact=exact)) == modality.encode(replace(field(), exact=exact))


def test_picture_inverts_below_its_limit_and_saturates_above() -> None:
    value = Flow(field(scale=7.9).forward, field().occluded)  # the limit is 32 / 8 = 4 px
    picture = modality.to_picture(value)
    assert picture.shape == (4, 24, 32, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert not picture[-1, ..., 2].any()
    back = modality.from_picture(picture)
    known = ~np.isnan(value.forward)
    assert np.abs(back.forward - np.clip(value.forward, -4, 4))[known].max() < 1e-5
    assert np.array_equal(back.occluded, value.occluded | np.isnan(value.forward[..., 0]))
    assert (back.forward[~known] == 0).all()


def test_noise_in_the_picture_stays_within_the_stated_error() -> None:
    value = Flow(field(scale=3.0).forward, field().occluded)
    picture = modality.to_picture(value)
    noise = np.random.default_rng(1).uniform(-0.05, 0.05, picture.shape).astype(np.float32)
    back, clean = modality.from_picture(picture + noise), modality.from_picture(picture)
    assert np.abs(back.forward - clean.forward).max() <= 0.05 * 32 / 4 + 1e-5
    assert np.array_equal(back.occluded, clean.occluded)


def test_people_see_the_middlebury_hues() -> None:
    forward = np.zeros((1, 1, 5, 2), np.float32)
    forward[0, 0, :4] = (10, 0), (-10, 0), (0, 10), (0, -10)
    right, left, down, up, still = modality.show(Flow(forward))[0, 0].astype(int)
    assert right[0] > 200 > right[1]  # red
    assert left[2] > 200 > left[0]  # cyan to blue
    assert down[0] > 200 < down[1]  # yellow
    assert up[2] > 200 > up[1]  # violet
    assert (still == 255).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))
def test_flips_and_crops_commute(frames: int, height: int, width: int, seed: int) -> None:
    value = field(seed, (frames, height, width))
    assert same(modality.flip(modality.flip(value)), value)
    box = Box(0, 0, width - 1, height - 1)
    mirrored = Box(1, 0, width, height - 1)
    assert same(modality.flip(modality.crop(value, box)), modality.crop(modality.flip(value), mirrored))
    inner = Box(0, 0, max(1, width // 2), max(1, height // 2))
    assert same(modality.crop(modality.crop(value, box), inner), modality.crop(value, inner))
    span = slice(0, frames - 1)
    assert same(modality.take(modality.crop(value, box), span), modality.crop(modality.take(value, span), box))


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(1, 40), st.integers(1, 40))
def test_a_translation_scales_with_the_frame(u: float, v: float, height: int, width: int) -> None:
    forward = np.broadcast_to(np.float32([u, v]), (2, 12, 20, 2)).copy()
    forward[0, 3:5, 6:9] = np.nan
    resized = modality.resize(Flow(forward), height, width).forward
    expected = np.array([u * width / 20, v * height / 12])
    known = ~np.isnan(resized[..., 0])
    assert known[1].all()
    assert np.abs(resized[known] - expected).max() < 1e-4


def test_resizing_a_linear_motion_up_and_down_gives_it_back() -> None:
    y, x = np.mgrid[:16, :24].astype(np.float32)
    value = Flow(np.stack([0.1 * x - 1, 0.05 * y + 0.02 * x], -1)[None])
    back = modality.resize(modality.resize(value, 32, 48), 16, 24)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert np.abs(back.forward[inner] - value.forward[inner]).max() < 1e-5


def test_a_point_that_leaves_the_crop_becomes_occluded() -> None:
    forward = np.zeros((1, 4, 6, 2), np.float32)
    forward[..., 0] = 2
    value = Flow(forward, np.zeros((1, 4, 6), bool))
    cropped = modality.crop(value, Box(1, 0, 5, 4)).occluded
    assert np.array_equal(cropped, np.broadcast_to([False, False, True, True], (1, 4, 4)))


def test_of_an_unknown_pixel_nothing_is_read_out() -> None:
    """Not that it is seen next either: where a frame is repeated, nothing is known of the next."""
    value = field()
    value.forward[1] = np.nan
    assert [(r.name, r.value) for r in modality.read_out(value, 1, 2, 3)] == [("flow", "unknown")]


def bad(**change) -> Flow:
    return replace(field(), **change)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (bad(forward=field().forward.astype(np.float64)), "float32"),
        (bad(forward=field().forward[..., :1]), "2"),
        (bad(forward=field().forward * np.inf), "infinite"),
        (bad(forward=np.where([True, False], np.nan, field().forward).astype(np.float32)), "half known"),
        (bad(forward=np.full((3, 24, 32, 2), 129, np.float32)), "not pixels"),
        (bad(occluded=field().occluded[:1]), "occlusion"),
        (bad(occluded=field().occluded.astype(np.uint8)), "bool"),
        (bad(backward=field().backward[:-1]), "backward"),
        (bad(backward=None), "without"),
    ],
)
def test_nonsense_is_refused(value: Flow, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message):
        modality.check(value)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "change", [{"frames": 3}, {"backward": False}, {"unit": 0.0}, {"unit": float("inf")}, {"height": 0}]
)
def test_false_numbers_are_refused(change: dict, exact: bool) -> None:
    encoded = modality.encode(replace(field(), exact=exact))
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))
