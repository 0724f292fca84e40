"""Depth in a colour map, masks as JPEG and flow drawn in colours are for people: refused by name, never averaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.video import encode_video
from unibench.scoring.runs import open_run
from unibench.tasks import Info
from unibench.tasks.depth import DepthOptions

INFO = Info(tasks={"depth": DepthOptions("relative")})
RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize("name", ["inferno", "jet", "viridis", "magma", "turbo"])
@pytest.mark.parametrize("kind", ["png", "mp4"])
def test_colour_mapped_depth_is_refused_and_its_map_named(tmp_path: Path, name: str, kind: str) -> None:
    drawn = cv2.applyColorMap(RAMP, getattr(cv2, f"COLORMAP_{name.upper()}"))
    (tmp_path / "depth/a").mkdir(parents=True)
    if kind == "png":
        cv2.imwrite(str(tmp_path / "depth/a/0.png"), drawn)
    else:
        (tmp_path / "depth/a/a.mp4").write_bytes(encode_video([drawn[..., ::-1]] * 3, 8.0))
    with pytest.raises(InvalidAnnotationError, match=rf"colour map {name}.*channels differ"):
        open_run(tmp_path, INFO).load("depth", "a")


@pytest.mark.parametrize("kind", ["png", "jpg", "mp4"])
def test_grey_depth_is_still_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "depth/a").mkdir(parents=True)
    grey = np.repeat(RAMP[..., None], 3, axis=-1)
    if kind == "mp4":
        (tmp_path / "depth/a/a.mp4").write_bytes(encode_video([grey] * 3, 8.0))
    else:
        cv2.imwrite(str(tmp_path / f"depth/a/0.{kind}"), grey)
    found = open_run(tmp_path, INFO).load("depth", "a").values[0]
    assert np.nanmax(np.abs(found - RAMP)) <= (0 if kind == "png" else 6)


def test_masks_as_jpeg_are_refused(tmp_path: Path) -> None:
    (tmp_path / "segmentation/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "segmentation/a/0.jpg"), RAMP // 128)
    with pytest.raises(InvalidAnnotationError, match="JPG, whose compression invents ids"):
        open_run(tmp_path).load("segmentation", "a")


def test_flow_drawn_in_colours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flow/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "flow/a/0.png"), cv2.applyColorMap(RAMP, cv2.COLORMAP_HSV))
    with pytest.raises(InvalidAnnotationError, match="drawn in colours"):
        open_run(tmp_path).load("flow", "a")
