"""Facebook's DensePose pictures have the part in blue, for they are written as if they were B, G, R."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from unibench.scoring.runs import open_run


def test_the_part_is_read_from_blue(tmp_path: Path) -> None:
    iuv = np.zeros((12, 16, 3), np.uint8)
    iuv[2:9, 3:12] = (15, 120, 240)
    (tmp_path / "densepose/a").mkdir(parents=True)
    (tmp_path / "densepose/b").mkdir()
    cv2.imwrite(str(tmp_path / "densepose/a/0_IUV.png"), iuv)  # as in DensePose's infer_simple: B is the part
    cv2.imwrite(str(tmp_path / "densepose/b/0.png"), iuv[..., ::-1])  # R is the part
    run = open_run(tmp_path)
    theirs, ours = run.load("densepose", "a"), run.load("densepose", "b")
    np.testing.assert_array_equal(theirs.values, ours.values)
    assert theirs.values[0, 4, 5].tolist() == [15, 120, 240, 1]
    assert (theirs.layout, ours.layout) == ("densepose-24", "anny-24")


def test_depth_as_pgm_is_read(tmp_path: Path) -> None:
    from unibench.tasks import Info
    from unibench.tasks.depth import DepthOptions

    depth = np.arange(1, 193, dtype=np.uint16).reshape(12, 16) * 100
    (tmp_path / "depth/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "depth/a/0.pgm"), depth)
    found = open_run(tmp_path, Info(tasks={"depth": DepthOptions("metric", 0.001)})).load("depth", "a")
    np.testing.assert_allclose(found.values[0], depth / 1000, rtol=1e-6)
