"""Reads values back from videos in which somebody drew depth, flow or segmentation in colours, as UnityVideo does.

Such a video is called a film here. Its colour map is not published, so several are tried: common maps for depth, the
Middlebury wheel for flow, and flat colours for segmentation. `Inverted.residual` is the mean distance of its colours
from the map, as a share of a channel's range. A film that fits none raises NotInvertibleError, and should be kept as a
picture. How skeletons and DensePose are drawn is not documented, so they are never inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from openuni.modalities.base import Frames
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow, colour_wheel
from openuni.modalities.segmentation import Instance, Segmentation

MOST_RESIDUAL = 0.06
"""Above this, a film was not drawn with the map. H.264 alone leaves about .01."""
LEAST_FLAT = 0.9
"""Least share of pixels near a flat colour, for a film of segments."""
_SPECTRAL = (
    (158, 1, 66), (213, 62, 79), (244, 109, 67), (253, 174, 97), (254, 224, 139), (255, 255, 191), (230, 245, 152),
    (171, 221, 164), (102, 194, 165), (50, 136, 189), (94, 79, 162),
)  # fmt: skip
"""ColorBrewer's Spectral, warm first."""
_CV2 = ("turbo", "inferno", "magma", "plasma", "viridis", "jet")
_BITS = 6
"""Of a channel in the tables by which colours are looked up."""
_NEAR = 0.1
"""Distance of colours, each channel in [0, 1], up to which they are taken for one."""
_APART = 0.2
_LEAST_SHARE = 1 / 2000
_MOST_COLOURS = 63
_MOVES = 0.15
"""Share of the full saturation from which on a colour tells a direction."""
_SMALL = 320
"""Pixels of the longer side at which speeds are compared with the clip's own motion."""


class NotInvertibleError(OpenUniError):
    """A film whose colours say nothing that can be read back; the message is why."""


@dataclass(frozen=True, slots=True, eq=False)
class Inverted:
    """A value, the mean distance of the film's colours from the map they were read by, and which map that was."""

    value: Any
    residual: float
    how: str


def invert(modality: str, film: Frames, rgb: Frames) -> Inverted:
    """The value that `film` shows, uint8 `[T, H, W, 3]`, of the clip `rgb` of T frames in any size.

    Raises NotInvertibleError.

    Example:
        >>> ramp = cv2.applyColorMap(np.tile(np.arange(256, dtype=np.uint8), (8, 1)), cv2.COLORMAP_INFERNO)
        >>> film = cv2.cvtColor(ramp, cv2.COLOR_BGR2RGB)[None]
        >>> found = invert("depth", film, film)
        >>> found.how, found.value.kind, bool(abs(found.value.values - np.arange(256) / 255).max() < 0.03)
        ('inferno', 'affine_disparity', True)
    """
    if modality == "depth":
        return depth(film)
    if modality == "flow":
        return flow(film, rgb)
    if modality == "segmentation":
        return segmentation(film)
    raise NotInvertibleError(f"how {modality} is drawn is not published")


def depth(film: Frames) -> Inverted:
    """Affine disparity in [0, 1]: the place on the nearest of eight maps, warm or bright being near."""
    sample = _sample(film)
    residuals = {name: float(np.sqrt(_distances(sample, ramp).min(axis=1) / 3).mean()) for name, ramp in _ramps()}
    how = min(residuals, key=residuals.__getitem__)
    if residuals[how] > MOST_RESIDUAL:
        raise NotInvertibleError(f"its colours lie {residuals[how]:.2f} from those of any map of depth ({how})")
    places = _table(how)[_codes(film)].astype(np.float32) / np.float32(255)
    return Inverted(Depth(places, "affine_disparity"), residuals[how], how)


def flow(film: Frames, rgb: Frames) -> Inverted:
    """Forward flow in pixels of the film's frames. `film` has as many frames as `rgb`, or one fewer.

    Direction and relative speed are the colours'; the speed at full saturation, which they do not tell, is fitted for
    each pair of frames to the motion that a dense inverse search finds in the clip. Pairs where the two do not agree
    are unknown (NaN).
    """
    pairs = len(rgb) - 1
    if len(film) not in (pairs, pairs + 1) or pairs < 1:
        raise NotInvertibleError(f"flow has {len(film)} frames, the clip {len(rgb)}")
    film = film[:pairs]
    residual = float(1 - _sample(film).max(axis=1).mean())
    if residual > MOST_RESIDUAL:
        raise NotInvertibleError(f"its colours lie {residual:.2f} from those of the Middlebury wheel")
    motion = np.stack([_relative(frame) for frame in film])
    fits = [_fit(motion[t], rgb[t], rgb[t + 1]) for t in range(pairs)]
    known = [fit for fit in fits if fit is not None]
    if 2 * len(known) < pairs:
        raise NotInvertibleError(f"its speeds fit the clip's own motion in {len(known)} of {pairs} pairs of frames")
    factors = np.array([np.nan if fit is None else fit for fit in fits], np.float32)
    return Inverted(Flow(motion * factors[:, None, None, None]), residual, "middlebury wheel, speed by DIS")


def segmentation(film: Frames) -> Inverted:
    """A segment for each flat colour, black (or the darkest) being the background; what shows at edges only is none."""
    sample = _sample(film)
    colours = _flat_colours(sample)
    distance = np.sqrt(_distances(sample, colours).min(axis=1))
    flat = float((distance < _NEAR).mean())
    if flat < LEAST_FLAT or len(colours) > _MOST_COLOURS:
        raise NotInvertibleError(f"{flat:.0%} of its pixels have flat colours ({len(colours)} of them)")
    nearest = _nearest_table(colours)[_codes(film)]
    solid = [k for k in range(len(colours)) if _is_solid(nearest[:: max(1, len(film) // 8)] == k)]
    if len(solid) < len(colours):
        colours = colours[solid]
        nearest = _nearest_table(colours)[_codes(film)]
    background = int(colours.max(axis=1).argmin())
    number = np.zeros(len(colours), np.int32)
    is_dark = colours[background].max() < 2 * _NEAR
    others = [k for k in range(len(colours)) if k != background or not is_dark]
    number[others] = np.arange(1, len(others) + 1)
    instances = tuple(Instance(int(number[k]), "object") for k in others)
    residual = float((distance / np.sqrt(3)).mean())
    return Inverted(Segmentation(number[nearest], instances), residual, f"{len(colours)} flat colours")


def _sample(film: Frames, most: int = 20_000) -> npt.NDArray[np.float32]:
    """Some colours of a film, `[N, 3]` in [0, 1], evenly over it."""
    flat = film.reshape(-1, 3)
    step = max(1, len(flat) // most) | 1  # odd, lest it fall on one column
    return flat[::step].astype(np.float32) / np.float32(255)


def _distances(colours: npt.NDArray[np.float32], ramp: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Squared distances `[N, M]`."""
    squares = (colours**2).sum(axis=1)[:, None] - 2 * colours @ ramp.T + (ramp**2).sum(axis=1)
    distances: npt.NDArray[np.float32] = np.maximum(squares, 0)
    return distances


@cache
def _ramps() -> tuple[tuple[str, npt.NDArray[np.float32]], ...]:
    """The maps by name, 256 colours each, near last."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    ramps = [
        (name, cv2.cvtColor(cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{name.upper()}")), cv2.COLOR_BGR2RGB))
        for name in _CV2
    ]
    at = np.linspace(len(_SPECTRAL) - 1, 0, 256)
    spectral = np.stack([np.interp(at, range(len(_SPECTRAL)), channel) for channel in zip(*_SPECTRAL, strict=True)], -1)
    found = {name: ramp[:, 0] for name, ramp in ramps} | {"spectral": spectral, "grey": np.repeat(levels, 3, axis=1)}
    return tuple((name, (np.asarray(ramp, np.float32) / np.float32(255))) for name, ramp in found.items())


@cache
def _table(name: str) -> npt.NDArray[np.uint8]:
    return _nearest_table(dict(_ramps())[name])


def _nearest_table(ramp: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """For each code of a colour the number of the nearest of at most 256."""
    side = (np.arange(1 << _BITS, dtype=np.float32) + np.float32(0.5)) / np.float32(1 << _BITS)
    blues = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    planes = []
    for red in side:
        colours = np.concatenate([np.full((len(blues), 1), red, np.float32), blues], axis=1)
        planes.append(_distances(colours, ramp).argmin(axis=1).astype(np.uint8))
    return np.concatenate(planes)


def _codes(film: Frames) -> npt.NDArray[np.int32]:
    high = (film >> (8 - _BITS)).astype(np.int32)
    codes: npt.NDArray[np.int32] = (high[..., 0] << 2 * _BITS) | (high[..., 1] << _BITS) | high[..., 2]
    return codes


@cache
def _hues() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The table of the wheel's hues, and the direction of each, `[256, 2]`."""
    wheel = colour_wheel()
    place = np.linspace(0, len(wheel) - 1, 256).round().astype(int)
    angle = (place / (len(wheel) - 1) * 2 - 1) * np.pi
    return _nearest_table(wheel[place]), -np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


def _relative(frame: Frames) -> npt.NDArray[np.float32]:
    """Direction times share of the full saturation, `[H, W, 2]`."""
    table, directions = _hues()
    colour = frame.astype(np.float32) / np.float32(255)
    speed = 1 - colour.min(axis=-1)
    pure = 1 - (1 - colour) / np.maximum(speed, np.float32(1e-3))[..., None]
    hue = table[_codes(np.rint(np.clip(pure, 0, 1) * 255).astype(np.uint8))]
    motion: npt.NDArray[np.float32] = directions[hue] * speed[..., None]
    return motion


def _fit(relative: npt.NDArray[np.float32], here: Frames, there: Frames) -> float | None:
    """The speed at full saturation, in pixels of `relative`; None where the two motions do not agree."""
    height, width = relative.shape[:2]
    share = min(1.0, _SMALL / max(height, width))
    small = (max(16, round(width * share)), max(16, round(height * share)))
    grey = [cv2.cvtColor(cv2.resize(f, small, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for f in (here, there)]
    found = _dense_search().calc(grey[0], grey[1], None)
    found = found * np.array([width / small[0], height / small[1]], np.float32)
    drawn = cv2.resize(relative, small, interpolation=cv2.INTER_AREA)
    length, speed = np.hypot(*np.moveaxis(found, -1, 0)), np.hypot(*np.moveaxis(drawn, -1, 0))
    moves = speed > _MOVES
    if moves.mean() < 0.002:
        return 0.0 if speed.max() < _MOVES else None
    agree = (found * drawn).sum(axis=-1)[moves] > 0.7 * (length * speed)[moves]
    if agree.mean() < 0.5:
        return None
    return float(np.median((length[moves] / speed[moves])[agree]))


def _dense_search() -> Any:
    # In full resolution: at half of it, people of a few dozen pixels were told to be half as fast as they are.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    return search


def _flat_colours(sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Colours of which there are many, `[N, 3]`, the most frequent first, none near another."""
    bins = np.minimum((sample * 16).astype(np.int32), 15)
    codes = (bins[:, 0] << 8) | (bins[:, 1] << 4) | bins[:, 2]
    counts = np.bincount(codes, minlength=1 << 12)
    found: list[npt.NDArray[np.float32]] = []
    for code in np.argsort(-counts, kind="stable"):
        if counts[code] < max(2, _LEAST_SHARE * len(sample)) or len(found) > _MOST_COLOURS:
            break
        mean = sample[codes == code].mean(axis=0)
        if all(np.linalg.norm(mean - other) > _APART for other in found):
            found.append(mean)
    return np.stack(found) if found else np.zeros((1, 3), np.float32)


def _is_solid(masks: npt.NDArray[np.bool_]) -> bool:
    """Whether a colour fills areas, and is not only a blend at the edges of others."""
    inner = sum(int(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).sum()) for mask in masks)
    return inner > 0.1 * int(masks.sum())
