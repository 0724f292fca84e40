"""Tone mapping against the standards' formulas, written out anew here in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from openuni.errors import BadVideoError
from openuni.sample import Clip
from openuni.video import normalise, probe, read_frames
from openuni.video.colour import Transfer, _light, pq_to_light, tone_map
from tests.openuni.video.films import hdr

Array = npt.NDArray[np.float64]
PQ, HLG = 16, 18
GREYS = [(v, v, v) for v in (0, 0.05, 0.2, 0.4, 0.58, 0.75, 1)]
COLOURS = [(0.6, 0.3, 0.3), (0.3, 0.6, 0.3), (0.3, 0.3, 0.6), (0.7, 0.6, 0.2), (0.5, 0.45, 0.4)]
PATCHES = np.array([*GREYS, *COLOURS])
"""R'G'B' signals, 0–1."""


def pq(light: Array) -> Array:
    y = (light / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def pq_inverse(signal: Array) -> Array:
    e = signal ** (1 / 78.84375)
    return np.asarray(10000 * (np.maximum(e - 0.8359375, 0) / (18.8515625 - 18.6875 * e)) ** (1 / 0.1593017578125))


def display_light(signal: Array, transfer: int) -> Array:
    """cd/m² on a screen of 1,000 cd/m² (HLG), or as the signal says (PQ)."""
    if transfer == PQ:
        return pq_inverse(signal)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    luminance = scene @ np.array([0.2627, 0.678, 0.0593])
    return np.asarray(1000 * scene * luminance[..., None] ** 0.2)


def reference(signal: Array, transfer: int) -> Array:
    """BT.709 code values, by BT.2390's EETF on the brightest channel, from 1,000 to 203 cd/m²."""
    light = display_light(signal, transfer)
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
    peak = pq(np.array(1000.0))
    e1 = np.minimum(pq(brightest) / peak, 1)
    top = pq(np.array(203.0)) / peak
    ks = 1.5 * top - 0.5
    t = (e1 - ks) / (1 - ks)
    p = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (3 * t**2 - 2 * t**3) * top
    light = light * pq_inverse(np.where(e1 < ks, e1, p) * peak) / brightest
    to_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    return np.asarray(255 * np.clip(light @ to_709.T / 203, 0, 1) ** (1 / 2.4))


def codes(signal: Array) -> tuple[npt.NDArray[np.uint16], Array]:
    """10-bit limited-range Y'CbCr of BT.2020, and the R'G'B' that these rounded values stand for."""
    r, g, b = np.moveaxis(signal, -1, 0)
    y = 0.2627 * r + 0.678 * g + 0.0593 * b
    stored = np.stack([876 * y + 64, 896 * (b - y) / 1.8814 + 512, 896 * (r - y) / 1.4746 + 512], axis=-1)
    stored = np.rint(stored)
    y, cb, cr = (stored[..., 0] - 64) / 876, (stored[..., 1] - 512) / 896, (stored[..., 2] - 512) / 896
    r, b = y + 1.4746 * cr, y + 1.8814 * cb
    g = (y - 0.2627 * r - 0.0593 * b) / 0.678
    return stored.astype(np.uint16), np.clip(np.stack([r, g, b], axis=-1), 0, 1)


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "pq"), (HLG, "hlg")])
@pytest.mark.parametrize("chroma", [1, 2])
def test_hdr_becomes_bt709_by_the_formulas(tmp_path: Path, transfer: int, name: str, chroma: int) -> None:
    """Within 1 of 255 on every patch, in 4:4:4 and in 4:2:0."""
    stored, signal = codes(np.repeat(np.repeat(PATCHES[None], 64, axis=0), 8, axis=1))
    path = hdr(tmp_path / "a.mkv", stored, transfer, chroma=chroma)
    (frame, *_) = read_frames(path, fps=16.0)
    np.testing.assert_allclose(frame[:, 4::8].astype(float), reference(signal, transfer)[:, 4::8], atol=1)
    assert probe(path).transfer == name
    assert normalise(Clip("k", str(path))).origin.transfer == name


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "pq"), (HLG, "hlg")])
def test_every_grey_follows_the_curve(transfer: int, name: Transfer) -> None:
    """All signals, in steps of 1/65280, within 1 of 255; in steps of 10 bits never darker for more light."""
    codes = np.arange(65281, dtype=np.uint16)
    grey = np.repeat(codes[None, :, None], 3, axis=2)
    shown = tone_map(grey, name, 9)
    np.testing.assert_allclose(shown.astype(float), reference(grey / 65280, transfer), atol=1)
    assert (np.diff(shown[0, ::64, 1].astype(int)) >= 0).all()


def test_the_curves_meet_the_points_that_the_standards_name() -> None:
    """ST 2084: signal .508 is 100 cd/m², 1 is 10,000. BT.2100: HLG's .5 is 1/12 of the scene's peak; BT.2408: .75 is
    203 cd/m² on a screen of 1,000.
    """
    assert pq_to_light(np.array([0.508078, 1.0])) == pytest.approx([100, 10000], rel=1e-4)
    half, three_quarters, peak = _light(np.array([[[k] * 3 for k in (32640, 48960, 65280)]], np.uint16), "hlg")[0, :, 0]
    assert half == pytest.approx(1000 * (1 / 12) ** 1.2, rel=1e-3)
    assert three_quarters == pytest.approx(203, rel=0.005)
    assert peak == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize(("matrix", "name"), [(14, "ICtCp"), (10, "constant luminance"), (8, "YCgCo")])
def test_colours_that_would_be_taken_for_others_are_refused_by_name(tmp_path: Path, matrix: int, name: str) -> None:
    """Dolby Vision, and what encoders write that few read: swscale takes every matrix it does not know for BT.601."""
    path = hdr(tmp_path / "a.mkv", codes(np.full((64, 64, 3), 0.5))[0], PQ, matrix)
    with pytest.raises(BadVideoError, match=f"its colours are coded as .*{name}"):
        probe(path)


def test_an_sdr_video_in_bt2020_keeps_its_code_values(tmp_path: Path) -> None:
    stored, signal = codes(np.repeat(np.repeat(PATCHES[None], 64, axis=0), 8, axis=1))
    path = hdr(tmp_path / "a.mkv", stored, 14)
    (frame, *_) = read_frames(path, fps=16.0)
    np.testing.assert_allclose(frame[:, 4::8].astype(float), 255 * signal[:, 4::8], atol=2)
    assert probe(path).transfer == "sdr"
