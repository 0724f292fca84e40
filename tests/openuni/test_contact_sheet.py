"""The contact sheet shows each modality beside the frame that it belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from openuni import contact_sheet
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow, FlowModality
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import Record, Sample, Status

T, H, W = 5, 24, 32


def sample_of(frames: int = T, **absent: str) -> Sample:
    rng = np.random.default_rng(0)
    directions = np.array([[3, 0], [0, 3], [-3, 0], [0, -3]], np.float32)
    ids = np.zeros((frames, H, W), np.int32)
    ids[:, 5:10, 5:10] = 1
    values = {
        "rgb": Rgb(rng.integers(0, 256, (frames, H, W, 3), dtype=np.uint8), 8.0),
        "depth": Depth(rng.uniform(1, 2, (frames, H, W)).astype(np.float32), "metric"),
        "flow": Flow(np.ones((frames - 1, H, W, 2), np.float32) * directions[: frames - 1, None, None]),
        "segmentation": Segmentation(ids, (Instance(1, "thing"),)),
    }
    statuses = {name: Status(name not in absent, absent.get(name, "")) for name in values}
    return Sample(Record("key", frames, H, W, 8.0, caption="two\nlines and 字"), statuses, values.__getitem__)


@pytest.mark.parametrize(("frame", "pair"), [(0, 0), (2, 2), (3, 3), (4, 3)])
def test_flow_is_that_from_the_frame_shown_to_the_next(frame: int, pair: int) -> None:
    sample = sample_of()
    expected = FlowModality().show(sample.flow)[pair]
    np.testing.assert_array_equal(contact_sheet.view(sample, "flow", frame), expected)


@pytest.mark.parametrize(("frame", "pair"), [(0, 1), (2, 1), (3, 3)])
def test_of_a_repeated_frame_the_nearest_known_flow_is_shown(frame: int, pair: int) -> None:
    sample = sample_of()
    sample.flow.forward[[0, 2]] = np.nan
    expected = FlowModality().show(FlowModality().take(sample.flow, slice(pair, pair + 2)))[0]
    assert expected.any()
    np.testing.assert_array_equal(contact_sheet.view(sample, "flow", frame), expected)


def test_flow_that_is_nowhere_known_is_black() -> None:
    sample = sample_of()
    sample.flow.forward[:] = np.nan
    assert not contact_sheet.view(sample, "flow", 2).any()


def test_a_clip_of_one_frame_has_a_black_flow() -> None:
    assert not contact_sheet.view(sample_of(1), "flow", 0).any()


def test_a_cell_is_the_middle_frame_and_an_absent_one_says_something() -> None:
    sample = sample_of(depth="it was too dark to see")
    sheet = contact_sheet.draw([sample, sample], ["rgb", "depth", "flow", "segmentation"], cell_width=W)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    top = (sheet == sample.rgb.frames[T // 2][0, :1]).all(axis=-1)
    assert any(
        np.array_equal(sheet[y : y + H, x : x + W], sample.rgb.frames[T // 2]) for y, x in np.argwhere(top).tolist()
    )
    assert contact_sheet.draw([sample], ["depth"], cell_width=224).max() > 100


def test_a_sheet_of_one_column_and_a_long_caption_can_be_drawn() -> None:
    assert contact_sheet.draw([sample_of()], ["rgb"]).shape[2] == 3
