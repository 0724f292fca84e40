"""Depth: storage and picture against their stated errors, geometry, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.depth import Depth, DepthModality
from openuni.modalities.planes import encode_planes

modality = DepthModality()


def scene(kind: str = "metric", seed: int = 0, shape: tuple[int, int, int] = (3, 24, 32)) -> Depth:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.uniform(np.log(0.5), np.log(80), shape)).astype(np.float32)
    if kind == "affine_disparity":
        values = rng.normal(-3, 40, shape).astype(np.float32)
    values[rng.random(shape) < 0.1] = np.nan
    return Depth(values, kind)


@pytest.mark.parametrize("kind", ["metric", "relative", "affine_disparity"])
def test_stored_disparity_is_within_half_a_step_and_holes_stay(kind: str) -> None:
    value = scene(kind)
    back = modality.decode(modality.encode(value))
    assert back.kind == kind
    assert back.values.dtype == np.float32
    assert np.array_equal(np.isnan(back.values), np.isnan(value.values))
    a, b = (
        v.values.astype(np.float64) if kind == "affine_disparity" else 1 / v.values.astype(np.float64)
        for v in (value, back)
    )
    step = (np.nanmax(a) - np.nanmin(a)) / 65534
    rounding = 2e-7 * np.nanmax(np.abs(a))  # float32 of the result itself
    assert np.nanmax(np.abs(a - b)) <= step / 2 + rounding


def test_error_at_80_m_is_as_stated() -> None:
    values = np.linspace(0.5, 80, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    back = modality.decode(modality.encode(Depth(values, "metric"))).values
    assert np.max(np.abs(back - values) / values) <= 0.0013


@pytest.mark.parametrize("kind", ["metric", "affine_disparity"])
@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 5, 7), 3.25, np.float32),
        np.full((2, 5, 7), np.nan, np.float32),
        np.array([[[1e-30, 1e30, 1.0, np.nan]]], np.float32),
        np.array([[[np.finfo(np.float32).tiny, np.finfo(np.float32).max]]], np.float32),
        np.full((1, 1, 1), 7.0, np.float32),
    ],
    ids=["constant", "all invalid", "huge range", "largest range", "one pixel"],
)
def test_extreme_clips_survive(values: np.ndarray, kind: str) -> None:
    back = modality.decode(modality.encode(Depth(values, kind))).values
    assert np.array_equal(np.isnan(back), np.isnan(values))
    extremes = [np.nanargmin, np.nanargmax] if not np.isnan(values).all() else []
    for extreme in extremes:
        assert back.flat[extreme(values)] == pytest.approx(values.flat[extreme(values)], rel=1e-5)
    assert np.isfinite(modality.to_picture(Depth(values, kind))).all()
    assert modality.show(Depth(values, kind)).shape == (*values.shape, 3)


def test_negative_and_constant_affine_disparity_survive() -> None:
    values = np.array([[[-5.0, -1.0, 0.0, 2.0]]], np.float32)
    back = modality.decode(modality.encode(Depth(values, "affine_disparity"))).values
    assert np.abs(back - values).max() <= 7 / 65534
    constant = Depth(np.full((1, 2, 2), -5.0, np.float32), "affine_disparity")
    assert np.array_equal(modality.decode(modality.encode(constant)).values, constant.values)


def test_exact_clips_come_back_bit_for_bit_and_the_same_bytes_twice() -> None:
    value = replace(scene(), exact=True)
    encoded = modality.encode(value)
    back = modality.decode(encoded)
    assert back.exact
    assert np.array_equal(back.values, value.values, equal_nan=True)
    assert encoded == modality.encode(value)
    assert modality.encode(scene()) == modality.encode(scene())


def extreme_maps() -> st.SearchStrategy[np.ndarray]:
    """Small maps of every float32 that can be a depth, some of them unknown, with all extremes."""

    def made(size: tuple[int, int, int], seed: int, low: float, high: float, unknown: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        values = np.exp(rng.uniform(min(low, high), max(low, high), size)).astype(np.float32)
        values[rng.random(size) < unknown] = np.nan
        return values

    side, exponent = st.integers(1, 9), st.one_of(st.floats(-87, 88), st.floats(-1, 3))
    unknown = st.sampled_from([0.0, 0.1, 0.9, 1.0])
    return st.builds(made, st.tuples(st.integers(1, 3), side, side), st.integers(0, 99), exponent, exponent, unknown)


@settings(deadline=None, max_examples=60)
@given(extreme_maps(), st.booleans())
def test_compact_depth_is_within_its_stated_error_and_holes_stay(values: np.ndarray, is_relative: bool) -> None:
    signs = np.where(np.arange(values.size) % 2, 1, -1).reshape(values.shape).astype(np.float32)
    value = Depth(values, "relative") if is_relative else Depth(values * signs, "affine_disparity")
    encoded = modality.encode_compact(value)
    assert encoded == modality.encode_compact(value)
    back = modality.decode(encoded)
    assert (back.kind, back.exact, back.values.dtype) == (value.kind, False, np.float32)
    assert np.array_equal(np.isnan(back.values), np.isnan(value.values))
    if np.isnan(values).all():
        return
    known = ~np.isnan(values)
    was, now = (v.values[known].astype(np.float64) for v in (value, back))
    if is_relative:
        assert (np.abs(now - was) / was).max() <= encoded.meta["error"] + 2e-7
        assert encoded.meta["error"] <= 0.0025 or was.max() / was.min() >= 7.5e8
        return
    allowed = encoded.meta["error"] * (was - was.min() + (was.max() - was.min()) / 400)
    assert (np.abs(now - was) <= allowed + 2e-7 * np.abs(was).max()).all()
    assert encoded.meta["error"] <= 0.00294


@pytest.mark.parametrize("ratio", [7, 100, 400])
def test_compact_disparity_keeps_what_is_far_in_metres(ratio: float) -> None:
    """With the true scale and shift, depth is within .3 % however the clip's range lies; linear codes miss by 19 %."""
    metres = np.geomspace(0.5, 0.5 * ratio, 30 * 40).reshape(1, 30, 40)
    scale, shift = 7.0, -2.1
    predicted = Depth((scale / metres + shift).astype(np.float32), "affine_disparity")
    back = modality.decode(modality.encode_compact(predicted)).values.astype(np.float64)
    assert np.abs(scale / (back - shift) / metres - 1).max() < 0.003


@pytest.mark.parametrize("kind", ["relative", "affine_disparity"])
@pytest.mark.parametrize("unknown", [0, 1, 35], ids=["constant", "one pixel unknown", "all unknown"])
def test_a_constant_map_is_kept_to_the_bit(kind: str, unknown: int) -> None:
    values = np.full((1, 5, 7), 3.25, np.float32)
    values.flat[:unknown] = np.nan
    back = modality.decode(modality.encode_compact(Depth(values, kind)))
    assert np.allclose(back.values, values, rtol=1e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["relative", "affine_disparity"])
def test_a_part_of_compact_depth_is_the_whole_cut(kind: str) -> None:
    encoded = modality.encode_compact(scene(kind))
    assert encoded.members["depth.mkv"] != modality.encode(scene(kind)).members["depth.mkv"]
    part = modality.decode_part(encoded, slice(1, 3))
    assert np.array_equal(part.values, modality.decode(encoded).values[1:3], equal_nan=True)


def test_truth_and_metres_have_no_compact_form() -> None:
    for value in (scene("metric"), replace(scene("relative"), exact=True)):
        assert modality.encode_compact(value) == modality.encode(value)


def test_what_older_versions_stored_is_read_as_before() -> None:
    """Their numbers have no word on bits: 16 between the extremes of disparity. Then compact disparity was linear."""
    encoded = modality.encode(scene("relative"))
    assert set(encoded.meta) == {"frames", "height", "width", "kind", "exact", "low", "high"}
    codes = np.array([[[0, 1, 512, 1023]]], np.uint16)
    meta = {"frames": 1, "height": 1, "width": 4, "kind": "affine_disparity", "bits": 10, "steps": 1022, "low": -1.0,
            "high": 1.0, "error": 1 / 1022}  # fmt: skip
    linear = modality.decode(Encoded({"depth.mkv": encode_planes(codes, 10)}, meta))
    assert np.allclose(linear.values, [np.nan, -1.0, 0.0, 1.0], equal_nan=True)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 8},
        {"bits": 12},
        {"steps": 0},
        {"steps": 5000},
        {"high": 100.0},
        {"low": -200.0},
        {"low": 9.0},
        {"kind": "metric"},
        {"high": float("inf")},
    ],
)
def test_false_numbers_of_compact_depth_are_refused(change: dict) -> None:
    encoded = modality.encode_compact(scene("relative"))
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))


@pytest.mark.parametrize(
    "change", [{"offset": 0.0}, {"offset": -1.0}, {"low": 9e9}, {"high": 1e300}, {"kind": "relative"}, {"low": None}]
)
def test_false_numbers_of_compact_disparity_are_refused(change: dict) -> None:
    encoded = modality.encode_compact(scene("affine_disparity"))
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))


def test_codes_that_nobody_wrote_are_unknown() -> None:
    encoded = modality.encode_compact(scene("relative"))
    back = modality.decode(Encoded(encoded.members, {**encoded.meta, "steps": 1}))
    assert np.isnan(back.values[modality.decode(encoded).values > 1]).all()


def test_picture_gives_disparity_back_up_to_the_saturated_nearest() -> None:
    value = scene()
    picture = modality.to_picture(value)
    assert picture.dtype == np.float32
    assert picture.shape == (3, 24, 32, 3)
    back = modality.from_picture(picture)
    assert back.kind == "affine_disparity"
    disparity = 1 / value.values
    expected = np.clip(disparity / np.nanquantile(disparity, 0.995), 0, 1)
    valid = ~np.isnan(disparity)
    assert np.abs(back.values - expected)[valid].max() < 1e-5
    assert (back.values[~valid] == 0).all()


def test_noise_in_the_picture_stays_within_the_stated_error() -> None:
    picture = modality.to_picture(scene("affine_disparity"))
    clean = modality.from_picture(picture).values
    noisy = modality.from_picture(picture + np.float32(0.02)).values
    assert (np.abs(noisy - clean) <= 2 * picture[..., 0] * 0.02 + 0.02**2 + 1e-6).all()


def test_near_is_warm_for_people_and_bright_for_the_model() -> None:
    value = Depth(np.linspace(1, 10, 100, dtype=np.float32).reshape(1, 10, 10), "metric")
    shown = modality.show(value).astype(int)
    assert shown[0, 0, 0, 0] > shown[0, 0, 0, 2] + 50
    assert shown[0, 9, 9, 2] > shown[0, 9, 9, 0]
    assert modality.to_picture(value)[0, 0, 0, 0] > modality.to_picture(value)[0, 9, 9, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 100))
def test_geometry_keeps_values(height: int, width: int, factor: int, seed: int) -> None:
    value = scene(seed=seed, shape=(2, height, width))
    same = lambda a, b: np.array_equal(a.values, b.values, equal_nan=True)  # noqa: E731
    assert same(modality.flip(modality.flip(value)), value)
    big = modality.resize(value, height * factor, width * factor)
    assert same(modality.resize(big, height, width), value)
    box = Box(0, 0, max(1, width // 2), max(1, height // 2))
    scaled = Box(0, 0, box.x1 * factor, box.y1 * factor)
    cropped = modality.resize(modality.crop(value, box), box.y1 * factor, box.x1 * factor)
    assert same(modality.crop(big, scaled), cropped)
    mirrored = Box(width - box.x1, 0, width, box.y1)
    assert same(modality.flip(modality.crop(value, box)), modality.crop(modality.flip(value), mirrored))
    assert same(modality.take(value, slice(1, 2)), replace(value, values=value.values[1:2]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Depth(np.ones((1, 2, 2), np.float64), "metric"), "float32"),
        (Depth(np.ones((2, 2), np.float32), "metric"), "T, H, W"),
        (Depth(np.full((1, 2, 2), np.inf, np.float32), "metric"), "infinit"),
        (Depth(np.zeros((1, 2, 2), np.float32), "metric"), "positive"),
        (Depth(-np.ones((1, 2, 2), np.float32), "relative"), "positive"),
        (Depth(np.ones((1, 2, 2), np.float32), "inverse"), "kind"),
    ],
)
def test_nonsense_is_refused(value: Depth, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message):
        modality.check(value)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 2},
        {"width": "wide"},
        {"low": float("nan")},
        {"kind": "x"},
        {"high": -1.0},
        {"frames": 2**20, "height": 2**20},
    ],
)
def test_false_numbers_are_refused(change: dict) -> None:
    encoded = modality.encode(scene())
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))


def test_missing_and_foreign_members_are_refused() -> None:
    meta = modality.encode(scene()).meta
    for members in ({}, {"depth.mkv": b""}, {"depth.mkv": b"not a video" * 99}):
        with pytest.raises(CorruptDataError):
            modality.decode(Encoded(members, meta))
