"""Segmentation: ids come back exactly, from storage and from a noisy picture."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.palette import COLOURS, nearest_colour, palette
from openuni.modalities.segmentation import Instance, Segmentation, SegmentationModality

modality = SegmentationModality()


def table(ids: np.ndarray) -> tuple[Instance, ...]:
    return tuple(Instance(int(i), f"thing {i}", 0.5, int(i) * 7) for i in np.unique(ids) if i)


def blobs(count: int = 5, seed: int = 0, shape: tuple[int, int, int] = (3, 40, 60)) -> Segmentation:
    """Rectangles that drift."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int32)
    for i in range(1, count + 1):
        y, x = rng.integers(0, shape[1]), rng.integers(0, shape[2])
        for t in range(shape[0]):
            ids[t, y : y + 12, x + t : x + t + 9] = i
    return Segmentation(ids, table(ids))


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 65535])
def test_ids_and_table_come_back_exactly_also_through_json(largest: int) -> None:
    ids = np.random.default_rng(0).choice([0, largest, largest // 2], (2, 9, 11)).astype(np.int32)
    value = Segmentation(ids, table(ids))
    encoded = modality.encode(value)
    back = modality.decode(Encoded(encoded.members, json.loads(json.dumps(encoded.meta))))
    assert back.ids.dtype == np.int32
    assert np.array_equal(back.ids, ids)
    assert back.instances == value.instances
    assert modality.encode(value) == encoded


def test_more_instances_than_8_bits_number_come_back_exactly() -> None:
    ids = (np.arange(30 * 30, dtype=np.int32).reshape(1, 30, 30) // 3) * 211
    value = Segmentation(ids, table(ids))
    assert len(value.instances) == 299
    assert np.array_equal(modality.decode(modality.encode(value)).ids, ids)


def test_palette_colours_are_all_different_and_far_apart() -> None:
    colours = palette()
    gaps = np.abs(colours[:, None] - colours[None]).max(axis=-1)[~np.eye(len(colours), dtype=bool)]
    assert gaps.min() == pytest.approx(1 / 3, abs=1e-6)
    assert not colours[0].any()
    noise = np.random.default_rng(0).uniform(-0.16, 0.16, (100, *colours.shape)).astype(np.float32)
    assert (nearest_colour(colours + noise) == np.arange(64)).all()


def test_a_noisy_picture_gives_every_region_back() -> None:
    value = blobs()
    picture = modality.to_picture(value)
    noise = np.random.default_rng(0).uniform(-0.16, 0.16, picture.shape).astype(np.float32)
    back = modality.from_picture(picture + noise)
    modality.check(back)
    renumbered = np.searchsorted(np.unique(value.ids), value.ids)  # ids in order, as the picture keeps them
    colours = np.unique(nearest_colour(picture))
    assert np.array_equal(back.ids, colours[renumbered])


def test_blends_at_blurred_edges_invent_no_objects() -> None:
    ids = np.zeros((1, 256, 256), np.int32)
    ids[:, 40:200, 30:120], ids[:, 60:160, 120:220] = 1, 2
    picture = modality.to_picture(Segmentation(ids, table(ids)))
    # One step of the blur a VAE leaves: edges only one pixel wide hold the blends.
    blurred = cv2.GaussianBlur(picture[0], (3, 3), 0.6)[None]
    back = modality.from_picture(blurred)
    assert (back.ids == ids).mean() > 0.985


def test_beyond_63_instances_the_smallest_are_dropped() -> None:
    ids = np.zeros((1, 80, 80), np.int32)
    for i in range(1, 71):
        ids[0, i, : i + 5] = i
    picture = modality.to_picture(Segmentation(ids, table(ids)))
    kept = ids > 70 - COLOURS
    assert (picture[~kept] == 0).all()
    back = modality.from_picture(picture)
    assert np.array_equal(back.ids > 0, kept)
    assert len(back.instances) == COLOURS


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 99))
def test_geometry_never_invents_an_id(height: int, width: int, factor: int, seed: int) -> None:
    value = blobs(3, seed, (2, height, width))
    same = lambda a, b: np.array_equal(a.ids, b.ids) and a.instances == b.instances  # noqa: E731
    assert same(modality.flip(modality.flip(value)), value)
    assert same(modality.resize(modality.resize(value, height * factor, width * factor), height, width), value)
    odd = modality.resize(value, height * 3 // 2, max(1, width * 2 // 3))
    assert set(np.unique(odd.ids)) <= set(np.unique(value.ids))
    box, mirrored = Box(0, 1, width - 1, height), Box(1, 1, width, height)
    assert same(modality.flip(modality.crop(value, box)), modality.crop(modality.flip(value), mirrored))
    assert same(modality.take(value, slice(1, 2)), replace(value, ids=value.ids[1:]))


def test_people_see_each_object_in_its_own_colour() -> None:
    value = blobs()
    shown = modality.show(value)
    inside = [shown[0][cv2.erode((value.ids[0] == i).astype(np.uint8), np.ones((3, 3))) > 0] for i in (1, 2, 3)]
    colours = {tuple(np.unique(pixels, axis=0)[0]) for pixels in inside if len(pixels)}
    assert len(colours) == sum(len(pixels) > 0 for pixels in inside) > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": blobs().ids.astype(np.int64)}, "int32"),
        ({"ids": -blobs().ids}, "run from"),
        ({"ids": blobs().ids + 65536}, "run from"),
        ({"instances": ()}, "no row"),
        ({"instances": table(blobs().ids) * 2}, "differ"),
        ({"instances": (*table(blobs().ids), Instance(9, ""))}, "class name"),
        ({"instances": (*table(blobs().ids), Instance(9, "x", 1.5))}, "score"),
    ],
)
def test_nonsense_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message):
        modality.check(replace(blobs(), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"instances": []},
        {"instances": [{"id": -1, "class_name": "x"}]},
        {"instances": 3},
        {"instances": [{"id": i, "class_name": "x"} for i in range(1, 300)]},
    ],
)
def test_false_numbers_are_refused(change: dict) -> None:
    encoded = modality.encode(blobs())
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))


def test_what_is_ignored_is_stored_and_costs_nothing_where_absent() -> None:
    ids = np.zeros((2, 6, 8), np.int32)
    ids[:, 1:3, 1:4] = 9
    value = Segmentation(ids, (Instance(9, "ball"),))
    assert "ignored" not in modality.encode(value).meta
    ignored = np.zeros(ids.shape, bool)
    ignored[:, 4:, 5:] = True
    full = Segmentation(ids, value.instances, ignored)
    back = modality.decode(modality.encode(full))
    np.testing.assert_array_equal(back.ids, ids)
    np.testing.assert_array_equal(back.ignored, ignored)
    np.testing.assert_array_equal(modality.flip(back).ignored, ignored[..., ::-1])
    with pytest.raises(InvalidAnnotationError, match="ignored"):
        modality.check(Segmentation(ids, value.instances, ids > 0))
