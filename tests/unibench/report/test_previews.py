"""Previews: every view is in the film, and none makes it larger than a person needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openuni.modalities.depth import Depth
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.video import decode_video
from unibench.report import previews


def test_a_film_of_large_views_is_made_small_and_small_ones_are_left(tmp_path: Path) -> None:
    for height, width, size in ((480, 832, (185, 320)), (36, 48, (36, 48))):
        ramp = np.linspace(0, 255, width).astype(np.uint8)
        rgb = np.broadcast_to(ramp[:, None], (3, height, width, 3)).copy()
        depth = np.broadcast_to(np.linspace(4, 1, width, dtype=np.float32), (3, height, width)).copy()
        record = Record("clip", 3, height, width, 8.0)
        views = {"rgb": Annotation(Rgb(rgb, 8.0)), "depth": Annotation(Depth(depth, "metric"))}
        (tmp_path / "clip.mp4").write_bytes(previews.draw(record, views)["clip.mp4"])
        film, _ = decode_video(tmp_path / "clip.mp4")
        assert film.shape == (3, -(-size[0] // 2) * 2, 2 * size[1], 3)
        shown = film[1, size[0] // 2, : size[1]].mean(-1)
        assert np.abs(shown - np.linspace(0, 255, size[1])).max() < 12  # H.264
