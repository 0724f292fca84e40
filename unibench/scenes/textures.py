"""Procedural pictures that surfaces wear: seeded, tileable, uint8 sRGB `[N, N, 3]`."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.float64]
Pattern = Literal["plain", "checker", "stripes", "dots", "bricks", "planks", "marble"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


def colour(rng: np.random.Generator) -> Colour:
    """A random sRGB colour `[3]` in [0, 1], neither dull nor dark."""
    h, s, v = rng.uniform(0, 179), rng.uniform(90, 230), rng.uniform(140, 245)
    rgb = cv2.cvtColor(np.array([[[h, s, v]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return np.asarray(rgb / 255.0)


def draw(
    pattern: Pattern, first: Colour, second: Colour, rng: np.random.Generator, grain: float = 0.12, size: int = 256
) -> Picture:
    """A tileable texture in two colours; `grain` is the contrast of fractal noise, so that motion shows everywhere."""
    v, u = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    cloud = noise(rng, size)
    mix: npt.NDArray[np.generic]
    match pattern:
        case "plain":
            mix = np.zeros_like(u)
        case "checker":
            mix = ((u * 8).astype(int) + (v * 8).astype(int)) % 2
        case "stripes":
            mix = (u * 8).astype(int) % 2
        case "dots":
            mix = np.hypot((u * 6) % 1 - 0.5, (v * 6) % 1 - 0.5) < 0.3
        case "bricks":
            row = (v * 8).astype(int)
            mix = ((v * 8) % 1 < 0.1) | ((u * 4 + 0.5 * (row % 2)) % 1 < 0.05)
        case "planks":
            row = (v * 6).astype(int)
            tone = rng.uniform(0, 0.5, 6)[row]
            mix = np.maximum(tone, ((v * 6) % 1 < 0.04) * 1.0) + 0.12 * np.sin(60 * np.pi * v + 2 * cloud)
        case "marble":
            mix = 0.5 + 0.5 * np.sin(2 * np.pi * (3 * u + 2 * v) + 0.8 * cloud)
    blend = first + (second - first) * np.clip(np.asarray(mix, np.float64), 0, 1)[..., None]
    return np.asarray(np.clip(blend * (1 + grain * cloud[..., None]), 0, 1) * 255 + 0.5).astype(np.uint8)


def noise(rng: np.random.Generator, size: int = 256) -> npt.NDArray[np.float64]:
    """Tileable fractal noise `[size, size]`, mean 0, standard deviation 1: amplitude falls as 1/frequency."""
    white = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    pink = np.fft.irfft2(white / np.maximum(frequency, 1) ** 1.1 * (frequency > 0), s=(size, size))
    return np.asarray(pink / pink.std())
