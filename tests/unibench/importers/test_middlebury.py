"""Middlebury .flo, MPI Sintel and FlyingChairs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError, OpenUniError
from tests.unibench.importers.clips import Clip, panning, reprojection
from unibench.importers import read
from unibench.importers.middlebury import read_dpt, read_flo


def write_tagged(path: Path, values: np.ndarray, order: str = "<") -> None:
    height, width = values.shape[:2]
    tag = np.array([202021.25], order + "f4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tag + np.array([width, height], order + "i4").tobytes() + values.astype(order + "f4").tobytes())


def write_sintel(root: Path, clip: Clip) -> None:
    truth = clip.truth
    for t, rgb in enumerate(clip.rgb):
        name = f"frame_{t + 1:04d}"
        for folder in ("final", "occlusions"):
            (root / folder / "alley").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "final/alley" / f"{name}.png"), rgb[..., ::-1])
        write_tagged(root / "depth/alley" / f"{name}.dpt", truth.depth[t])
        K = truth.camera.intrinsics[t].copy()
        K[:2, 2] -= 0.5
        outside = np.linalg.inv(truth.camera.pose[t])[:3]
        camera = root / "camdata_left/alley" / f"{name}.cam"
        camera.parent.mkdir(parents=True, exist_ok=True)
        camera.write_bytes(b"PIEH" + K.astype("<f8").tobytes() + outside.astype("<f8").tobytes())
        if t < len(truth.forward):
            write_tagged(root / "flow/alley" / f"{name}.flo", truth.forward[t])
            cv2.imwrite(str(root / "occlusions/alley" / f"{name}.png"), truth.occluded[t].astype(np.uint8) * 255)


def test_sintel_comes_back_exactly(tmp_path: Path) -> None:
    clip = panning()
    write_sintel(tmp_path / "training", clip)
    (found,) = read("sintel", tmp_path)
    np.testing.assert_array_equal(found.rgb, clip.rgb)
    np.testing.assert_array_equal(found.depth.values, clip.truth.depth)
    np.testing.assert_array_equal(found.flow.forward, clip.truth.forward)
    np.testing.assert_array_equal(found.flow.occluded, clip.truth.occluded)
    assert reprojection(clip.truth, found.camera, found.depth.values) < 1e-3


def test_a_missing_frame_in_the_middle_is_named(tmp_path: Path) -> None:
    write_sintel(tmp_path, panning())
    (tmp_path / "final/alley/frame_0002.png").unlink()
    with pytest.raises(CorruptDataError, match="frame 2 "):
        list(read("sintel", tmp_path))


def test_frames_of_two_sizes_are_named(tmp_path: Path) -> None:
    write_sintel(tmp_path, panning())
    cv2.imwrite(str(tmp_path / "final/alley/frame_0003.png"), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(CorruptDataError, match=r"frame_0003\.png"):
        list(read("sintel", tmp_path))


def test_values_beyond_1e9_are_unknown(tmp_path: Path) -> None:
    flow = np.zeros((3, 4, 2), np.float32)
    flow[1, 2] = 1.666666752e9
    write_tagged(tmp_path / "a.flo", flow)
    found = read_flo(tmp_path / "a.flo")
    assert np.isnan(found[1, 2]).all()
    assert np.isnan(found).sum() == 2


def test_another_byte_order_a_cut_file_and_a_huge_header_are_refused(tmp_path: Path) -> None:
    write_tagged(tmp_path / "big.flo", np.zeros((3, 4, 2)), ">")
    with pytest.raises(CorruptDataError, match="byte order"):
        read_flo(tmp_path / "big.flo")
    write_tagged(tmp_path / "cut.dpt", np.zeros((3, 4, 1)))
    (tmp_path / "cut.dpt").write_bytes((tmp_path / "cut.dpt").read_bytes()[:-1])
    with pytest.raises(CorruptDataError, match="cut"):
        read_dpt(tmp_path / "cut.dpt")
    for size in ([2**31 - 1, 2**31 - 1], [-4, 4], [2**16, 2**16]):
        (tmp_path / "huge.flo").write_bytes(b"PIEH" + np.array(size, "<i4").tobytes())
        with pytest.raises(CorruptDataError, match="claims"):
            read_flo(tmp_path / "huge.flo")


def test_middleburys_own_pairs_come_back(tmp_path: Path) -> None:
    clip = panning()
    for name in ("other-data/Grove2", "other-gt-flow/Grove2"):
        (tmp_path / name).mkdir(parents=True)
    for number, frame in ((10, clip.rgb[0]), (11, clip.rgb[1])):
        cv2.imwrite(str(tmp_path / f"other-data/Grove2/frame{number}.png"), frame[..., ::-1])
    flow = np.where(np.isnan(clip.truth.forward[0]), 1.666666752e9, clip.truth.forward[0]).astype(np.float32)
    write_tagged(tmp_path / "other-gt-flow/Grove2/flow10.flo", flow)
    (found,) = read("middlebury", tmp_path)
    assert found.key == "middlebury-Grove2"
    np.testing.assert_array_equal(found.rgb, clip.rgb[:2])
    np.testing.assert_array_equal(found.flow.forward, clip.truth.forward[:1])
    (tmp_path / "other-data/Grove2/frame11.png").unlink()
    with pytest.raises(OpenUniError, match=r"frame11\.png"):
        list(read("middlebury", tmp_path))
    with pytest.raises(CorruptDataError, match="other-gt-flow"):
        list(read("middlebury", tmp_path / "other-data"))


def test_real_flying_chairs_explain_their_second_picture(shared_data: Path) -> None:
    clips = list(read("flyingchairs", shared_data / "flow" / "flyingchairs"))
    assert len(clips) == 2
    for clip in clips:
        flow = clip.flow.forward[0]
        y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
        first, second = clip.rgb.astype(np.float32)
        warped = cv2.remap(
            second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        # The median, for FlyingChairs has no occlusion mask.
        assert np.median(np.abs(warped - first)) < 0.35 * np.median(np.abs(second - first))


def test_a_real_pair_of_flows_undo_each_other(shared_data: Path) -> None:
    folder = shared_data / "flow" / "mmflow_tiny"
    there, back = read_flo(folder / "0000000-flow_01.flo"), read_flo(folder / "0000000-flow_10.flo")
    hidden = cv2.imread(str(folder / "0000000-occ_01.png"), cv2.IMREAD_GRAYSCALE) > 0
    y, x = np.mgrid[:50, :50].astype(np.float32)
    returned = cv2.remap(back, x + there[..., 0], y + there[..., 1], cv2.INTER_LINEAR)
    error = np.linalg.norm(there + returned, axis=-1)
    assert np.median(error[~hidden]) < 0.05
