"""TUM RGB-D and ICL-NUIM."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from tests.unibench.importers.clips import Clip, panning, quaternion, reprojection
from unibench.camera import Camera
from unibench.importers import read
from unibench.importers.checks import check_depth, mismatch
from unibench.importers.poses import pose, rotation
from unibench.importers.tum import icl_camera, read_depth


def write_frames(src: Path, clip: Clip) -> None:
    for t, rgb in enumerate(clip.rgb):
        for folder, picture in (("rgb", rgb[..., ::-1]), ("depth", np.nan_to_num(clip.truth.depth[t] * 5000).round())):
            (src / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(src / folder / f"{t}.png"), picture.astype(np.uint8 if folder == "rgb" else np.uint16))


def test_tum_poses_and_depth_come_back(tmp_path: Path) -> None:
    clip = panning("collide", 535.4 / 640, 480, 640, 2, (320.6, 248.1))
    src = tmp_path / "rgbd_dataset_freiburg3_toy"
    write_frames(src, clip)
    stamps = [f"{1000 + 0.1 * t:.4f}" for t in range(2)]
    for kind in ("rgb", "depth"):
        (src / f"{kind}.txt").write_text("# list\n" + "".join(f"{s} {kind}/{t}.png\n" for t, s in enumerate(stamps)))
    rows = []
    for t, stamp in enumerate(stamps):
        pose = clip.truth.camera.pose[t]
        rows.append(" ".join([stamp, *(f"{v:.9f}" for v in (*pose[:3, 3], *quaternion(pose[:3, :3])))]))
    (src / "groundtruth.txt").write_text("\n".join(rows))
    (found,) = read("tum", src)
    np.testing.assert_allclose(found.camera.pose, clip.truth.camera.pose, atol=1e-6)
    np.testing.assert_allclose(found.depth.values, clip.truth.depth, atol=1.01e-4)
    assert found.camera.intrinsics[0, 0, 2] == 320.6
    assert found.fps == pytest.approx(10, abs=0.01)


def test_icl_is_mirrored_into_a_right_handed_world() -> None:
    """Write poses as ICL does (camera and world with y up), read them, and meet the exact flow."""
    clip = panning("collide", focal=481.2 / 640, height=480, width=640, frames=2)
    mirror = np.diag([1.0, -1.0, 1.0])
    poses = clip.truth.camera.pose
    turns = mirror @ poses[:, :3, :3] @ mirror
    camera = icl_camera(np.stack([quaternion(t) for t in turns]), poses[:, :3, 3] @ mirror, 480, 640)
    assert reprojection(clip.truth, camera, clip.truth.depth) < 2e-3


def test_real_icl_frames_meet_each_other(shared_data: Path, tmp_path: Path) -> None:
    """Depth carried by the poses meets the depth of another frame; not mirrored, it is ten times further off."""
    source = shared_data / "depth" / "icl"
    shutil.copytree(source / "color", tmp_path / "rgb")
    shutil.copytree(source / "depth", tmp_path / "depth")
    numbers = np.loadtxt(source / "pose.txt")
    (tmp_path / "associations.txt").write_text("".join(f"{n} depth/{n}.png {n} rgb/{n}.png\n" for n in range(1, 6)))
    np.savetxt(tmp_path / "room.gt.freiburg", np.column_stack([np.arange(1, 6), numbers]))
    (clip,) = read("icl", tmp_path)
    depth = clip.depth.values
    assert 0.5 < np.nanmin(depth) < np.nanmax(depth) < 6
    for far in (2, 3, 4):  # frame 0 shares a part with each
        assert mismatch(clip.camera, depth[0], depth[far], 0, far) < 0.01
    plain = pose(rotation(numbers[:, 3:]), numbers[:, :3])
    unmirrored = Camera(clip.camera.intrinsics, plain, 480, 640)
    assert mismatch(unmirrored, depth[0], depth[2], 0, 2) > 0.1


def test_real_tum_frames_agree_with_a_pose_found_from_their_pictures(shared_data: Path) -> None:
    """The pose from matched corners and the first depth (PnP) carries that depth onto the second."""
    source = shared_data / "depth" / "tum"
    depth = [read_depth(source / f"{n}_depth.png") for n in (1, 2)]
    assert 0.4 < np.nanmin(depth) < np.nanmax(depth) < 14
    orb = cv2.ORB_create(2000)
    (k1, d1), (k2, d2) = (orb.detectAndCompute(cv2.imread(str(source / f"{n}.png"), 0), None) for n in (1, 2))
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(d1, d2)
    p1 = np.array([k1[m.queryIdx].pt for m in matches])
    p2 = np.array([k2[m.trainIdx].pt for m in matches])
    z = depth[0][p1[:, 1].astype(int), p1[:, 0].astype(int)]
    K = np.array([[520.9, 0, 325.1], [0, 521.0, 249.7], [0, 0, 1]])
    points = np.column_stack([(p1[:, 0] - K[0, 2]) / K[0, 0] * z, (p1[:, 1] - K[1, 2]) / K[1, 1] * z, z])
    known = np.isfinite(z)
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(points[known], p2[known], K, None, reprojectionError=2.0)
    assert found
    assert len(inliers) > 100
    poses = np.tile(np.eye(4), (2, 1, 1))
    outside = np.eye(4)
    outside[:3, :3], outside[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    poses[1] = np.linalg.inv(outside)
    K[:2, 2] += 0.5
    camera = Camera(np.tile(K, (2, 1, 1)), poses, 480, 640)
    assert mismatch(camera, depth[0], depth[1], 0, 1) < 0.02


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    src = tmp_path / "freiburg1"
    src.mkdir()
    (src / "rgb.txt").write_text("1.0 ../../secret.png\n")
    (src / "depth.txt").write_text("1.0 depth/1.png\n")
    with pytest.raises(CorruptDataError, match="leads out"):
        list(read("tum", src))


def test_centimetres_and_radial_depth_are_named() -> None:
    clip = panning("collide")
    truth = clip.truth
    check_depth(truth.camera, truth.depth, "exact")
    with pytest.raises(InvalidAnnotationError, match="planar depth in centimetres"):
        check_depth(truth.camera, truth.depth * 100, "file")
    length = np.linalg.norm(truth.camera.rays(0, truth.camera.pixels()), axis=1).reshape(truth.depth.shape[1:])
    with pytest.raises(InvalidAnnotationError, match="radial depth in metres"):
        check_depth(truth.camera, (truth.depth * length).astype(np.float32), "file")
