"""High dynamic range to what an SDR screen shows: PQ and HLG, in BT.2020, to BT.709 at 8 bits.

Every step is the standard's formula: SMPTE ST 2084 (PQ) or ITU-R BT.2100 (HLG, shown at 1,000 cd/m²) to light,
the EETF of ITU-R BT.2390 to bring 1,000 cd/m² down to reference white (203 cd/m², BT.2408) on the brightest channel,
so that hues stay, the matrix of BT.2087 to BT.709 primaries, and the inverse of BT.1886 (gamma 2.4) to code values.
Peaks that files declare are not used: the same picture comes out whatever a file says of itself, in every frame.
"""

from __future__ import annotations

import functools
from typing import Final, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorTrc

Transfer = Literal["sdr", "pq", "hlg"]
"""How code values stand for light in the source."""

_UNREADABLE: Final = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "Y'D'zD'x",
    12: "a matrix that follows from its primaries",
    13: "constant luminance that follows from its primaries",
    14: "ICtCp",
    15: "IPT-C2 (Dolby Vision profile 5)",
    16: "YCgCo-R",
    17: "YCgCo-R",
}
"""Matrices of ITU-T H.273 that swscale does not know: it would take the code values for BT.601's without a word."""

PEAK: Final = 1000.0
"""Light of the brightest source pixel that keeps its detail, cd/m²."""
WHITE: Final = 203.0
"""Light that becomes code value 255, cd/m²."""

_FULL: Final = 255 * 256
"""What swscale gives for the signal 1 at 16 bits."""
_STRIPE = 1 << 18  # pixels worked on at once: what they need stays in the cache
_BT2020_TO_BT709: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def transfer_of(color_trc: int) -> Transfer:
    """The transfer that FFmpeg's number names (ITU-T H.273)."""
    if color_trc == ColorTrc.SMPTE2084.value:
        return "pq"
    return "hlg" if color_trc == ColorTrc.ARIB_STD_B67.value else "sdr"


def unreadable(colorspace: int) -> str | None:
    """The name of a colour matrix (ITU-T H.273) whose videos cannot be shown in their colours; None for the others."""
    return _UNREADABLE.get(colorspace)


def tone_map(codes: npt.NDArray[np.uint16], transfer: Transfer, color_primaries: int) -> npt.NDArray[np.uint8]:
    """RGB code values `[H, W, 3]` uint16 as swscale gives them, PQ or HLG, as BT.709 uint8 `[H, W, 3]`.

    Primaries other than BT.709's are taken as BT.2020.
    """
    out = np.empty(codes.shape, np.uint8)
    rows = max(1, _STRIPE // codes.shape[1])
    for top in range(0, len(codes), rows):
        light = _light(codes[top : top + rows], transfer)
        brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
        light *= _attenuation()[_index(brightest)][..., None]
        if color_primaries != ColorPrimaries.BT709.value:
            light = cast(npt.NDArray[np.float32], cv2.transform(light, _BT2020_TO_BT709))
        level = np.clip(light * np.float32(1 / WHITE), 0, 1)
        out[top : top + rows] = _gamma()[np.rint(np.sqrt(level) * 65535).astype(np.uint16)]
    return out


def _light(codes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.float32]:
    """Light of the display, cd/m²."""
    if transfer == "pq":
        return _pq_light()[codes]
    scene = _hlg_scene()[codes]
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    scene *= (PEAK * luminance**0.2)[..., None]
    return scene


def pq_to_light(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """cd/m² of a PQ signal in 0–1 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def light_to_pq(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The PQ signal of so many cd/m²."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (light / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def _eetf(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BT.2390: a straight line in PQ up to the knee, then a Hermite spline from there to white at the peak."""
    peak, white = light_to_pq(np.array([PEAK, WHITE]))
    signal = np.minimum(light_to_pq(light) / peak, 1)
    highest = white / peak
    knee = 1.5 * highest - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * highest
    return pq_to_light(np.where(signal < knee, signal, spline) * peak)


def _signal() -> npt.NDArray[np.float64]:
    """0–1, by code value."""
    return np.minimum(np.arange(65536) / _FULL, 1)


@functools.cache
def _pq_light() -> npt.NDArray[np.float32]:
    return pq_to_light(_signal()).astype(np.float32)


@functools.cache
def _hlg_scene() -> npt.NDArray[np.float32]:
    """Light of the scene, 0–1, of an HLG signal (BT.2100, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = _signal()
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


def _index(light: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Where `light` stands in the table of `_attenuation`: by its square root, fine where it is dark."""
    steps: npt.NDArray[np.float32] = np.rint(np.sqrt(light * np.float32(1e-4)) * 65535)
    return steps.astype(np.uint16)


@functools.cache
def _attenuation() -> npt.NDArray[np.float32]:
    light = 10000 * (np.maximum(np.arange(65536), 1) / 65535) ** 2
    return (_eetf(light) / light).astype(np.float32)


@functools.cache
def _gamma() -> npt.NDArray[np.uint8]:
    """Code values by the square root of light, 0–65535: inverse of BT.1886."""
    return np.rint(255 * (np.arange(65536) / 65535) ** (2 / 2.4)).astype(np.uint8)
