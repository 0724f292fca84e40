"""Mitsuba's pictures and geometry against the truth, which never saw Mitsuba."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build

pytest.importorskip("mitsuba")


@pytest.mark.parametrize("family", ["collide", "pendulum", "fly"])
def test_depth_is_the_z_of_mitsubas_position(family: str) -> None:
    from unibench.rendering.mitsuba import positions

    scene = build(Spec(family, 2, 2, 64, 96))
    truth, camera = trace(scene), scene.camera
    met = positions(scene).astype(np.float64)
    for t in range(2):
        z = camera.to_camera(t, met[t])[..., 2]
        ids = truth.ids[t].astype(np.float32)
        square = np.ones((3, 3), np.uint8)
        away = cv2.erode(ids, square) == cv2.dilate(ids, square)
        np.testing.assert_array_equal(np.isnan(z)[away], np.isnan(truth.depth[t])[away])
        seen = away & ~np.isnan(z)
        assert np.abs(z / truth.depth[t] - 1)[seen].max() < 1e-4


@pytest.mark.slow
def test_a_photograph_shows_what_the_truth_says() -> None:
    """Its edges lie where ids change, it repeats exactly, and the shaded picture is like it."""
    pytest.importorskip("pyoidn")
    from unibench.rendering.mitsuba import photograph
    from unibench.rendering.shaded import shade

    scene = build(Spec("collide", 2, 2, 64, 96))
    picture = photograph(scene, samples=8)
    assert picture.shape == (2, 64, 96, 3)
    np.testing.assert_array_equal(picture, photograph(scene, samples=8))
    assert 40 < picture.mean() < 200
    # A picture mirrored or shifted by a pixel or two would not correlate with the other renderer's.
    ours, theirs = (cv2.Laplacian(p[0].astype(np.float32).mean(-1), cv2.CV_32F) for p in (shade(scene), picture))
    scores = {
        shift: np.corrcoef(np.roll(theirs, shift, (0, 1))[4:-4, 4:-4].ravel(), ours[4:-4, 4:-4].ravel())[0, 1]
        for shift in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0, 2)]
    }
    assert max(scores, key=lambda shift: scores[shift]) == (0, 0)


@pytest.mark.slow
def test_a_photograph_wears_the_textures_that_the_shaded_picture_wears() -> None:
    """Hue over a person, whose atlas no flip or turn leaves as it is."""
    pytest.importorskip("pyoidn")
    from unibench.rendering.mitsuba import photograph
    from unibench.rendering.shaded import shade

    scene = build(Spec("walk", 3, 2, 96, 96))
    person = trace(scene).people.surface[0, ..., 3] == 1
    ours, theirs = (p[0][person].astype(float) for p in (shade(scene), photograph(scene, samples=8)))
    chroma = [np.stack([p[:, 0] - p[:, 1], p[:, 2] - p[:, 1]], 1).ravel() for p in (ours, theirs)]
    assert np.corrcoef(*chroma)[0, 1] > 0.85
