"""Pictures of a sample for people: its RGB, truth, prediction and where the two differ, side by side for one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.modalities import get as modality
from openuni.modalities.depth import Depth
from unibench.metrics.depth import apply_fit, fit, valid_truth
from unibench.metrics.segmentation import overlaps, pair_objects

Image = npt.NDArray[np.uint8]
"""RGB `[H, W, 3]`."""
_UNKNOWN = (90, 90, 90)
_EDGE = 320
"""Longer side of a panel, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One picture and what it shows."""

    caption: str
    image: Image


def panels(task: str, found: Any, true: Any, rgb: Image | None, frame: int, max_depth: float) -> list[Panel]:
    """RGB (where known), truth, prediction and error of one frame; `found` is already resampled to the truth."""
    shown = [] if rgb is None else [Panel("RGB", rgb)]
    return [Panel(p.caption, _fit_in(p.image)) for p in (*shown, *_DRAW[task](found, true, frame, max_depth))]


def _fit_in(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _EDGE / max(height, width)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=method)
    return np.asarray(resized, dtype=np.uint8)


def heat(error: npt.NDArray[np.floating], top: float, valid: npt.NDArray[np.bool_] | None = None) -> Image:
    """Errors `[H, W]` from 0 (black) to `top` and above (white) over red and yellow; grey where not valid."""
    level = np.nan_to_num(np.clip(error / top, 0, 1), nan=1.0)
    image = cv2.cvtColor(cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB)
    if valid is not None:
        image[~valid] = _UNKNOWN
    return np.asarray(image, dtype=np.uint8)


def _depth(found: Depth, true: Depth, t: int, max_depth: float) -> list[Panel]:
    valid = valid_truth(true.values, max_depth)
    fitted = fit(found, true.values, valid, "disparity")
    if not valid.any() or fitted is None:
        return []
    aligned = apply_fit(found, fitted, max_depth)[t]
    truth = np.where(valid[t], true.values[t], np.nan)
    disparity = 1 / truth
    low, high = np.nanquantile(1 / true.values[valid], [0.005, 0.995])
    error = np.abs(aligned - truth) / truth
    return [
        Panel("truth (disparity)", _grey(disparity, low, high)),
        Panel("prediction, aligned", _grey(1 / aligned, low, high)),
        Panel("|d − d*| / d*: 0 … 0.5", heat(error, 0.5, valid[t])),
    ]


def _grey(values: npt.NDArray[np.floating], low: float, high: float) -> Image:
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    shades = cv2.applyColorMap((255 * np.nan_to_num(level)).astype(np.uint8), cv2.COLORMAP_INFERNO)
    image = np.asarray(cv2.cvtColor(shades, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    image[np.isnan(values)] = _UNKNOWN
    return image


def _flow(found: Any, true: Any, t: int, max_depth: float) -> list[Panel]:
    del max_depth
    t = min(t, len(true.forward) - 1)
    if t < 0:
        return []
    valid = np.isfinite(true.forward[t]).all(axis=-1)
    top = max(float(np.quantile(np.linalg.norm(true.forward[t][valid], axis=-1), 0.99)), 1.0) if valid.any() else 1.0
    error = np.linalg.norm(found.forward[t] - true.forward[t], axis=-1)
    return [
        Panel(f"truth (full colour: {top:.3g} px)", flow_wheel(true.forward[t], top)),
        Panel("prediction", flow_wheel(found.forward[t], top)),
        Panel("end-point error: 0 … 5 px", heat(error, 5, valid)),
    ]


def flow_wheel(flow: npt.NDArray[np.floating], top: float) -> Image:
    """Direction as hue, length as saturation (full at `top` pixels); grey where not finite."""
    finite = np.isfinite(flow).all(axis=-1)
    x, y = np.where(finite, flow[..., 0], 0), np.where(finite, flow[..., 1], 0)
    hue = (np.arctan2(y, x) + np.pi) * (179 / (2 * np.pi))
    saturation = 255 * np.clip(np.hypot(x, y) / top, 0, 1)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
    image[~finite] = _UNKNOWN
    return image


def _segmentation(found: Any, true: Any, t: int, max_depth: float) -> list[Panel]:
    """Predicted objects wear the colour of the true object that they are paired with."""
    del max_depth
    pairs = pair_objects(overlaps(found, true))
    colour = {i.id: k + 1 for k, i in enumerate(true.instances)}
    paired = {found.instances[p].id: k + 1 for k, p in enumerate(pairs) if p is not None}
    spare = {i.id: len(colour) + k + 1 for k, i in enumerate(found.instances) if i.id not in paired}
    there, here = _renumber(true.ids[t], colour), _renumber(found.ids[t], paired | spare)
    return [
        Panel("truth", _palette(there)),
        Panel("prediction, paired", _palette(here)),
        _agreement(there, here),
    ]


def _agreement(there: npt.NDArray[np.integer], here: npt.NDArray[np.integer]) -> Panel:
    """Where two maps of labels, 0 the background, agree (truth first)."""
    image = np.zeros((*there.shape, 3), np.uint8)
    image[(there != here) & (there > 0)] = (220, 60, 60)
    image[(there != here) & (there == 0)] = (70, 110, 230)
    image[(there == here) & (there > 0)] = (200, 200, 200)
    return Panel("right grey, wrong red, too much blue", image)


def _renumber(ids: npt.NDArray[np.integer], numbers: Mapping[int, int]) -> npt.NDArray[np.int64]:
    table = np.zeros(max(int(ids.max(initial=0)), *numbers, 0) + 1, np.int64)
    for old, new in numbers.items():
        table[old] = new
    return np.asarray(table[ids])


def _palette(numbers: npt.NDArray[np.int64]) -> Image:
    used = np.arange(int(numbers.max(initial=0)) + 1)
    hsv = np.stack([used * 0.6180339887 % 1 * 179, np.full(len(used), 170), np.full(len(used), 235)], axis=-1)
    colours = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    colours[0] = 30
    return np.asarray(colours[numbers], dtype=np.uint8)


def _skeleton(found: Any, true: Any, t: int, max_depth: float) -> list[Panel]:
    del max_depth
    there, here = _shown("skeleton", true, t), _shown("skeleton", found, t)
    difference = np.abs(there.astype(np.int16) - here).max(axis=-1)
    return [Panel("truth", there), Panel("prediction", here), Panel("difference", heat(difference, 255))]


def _densepose(found: Any, true: Any, t: int, max_depth: float) -> list[Panel]:
    """The error is that of the parts: charts of two layouts cannot be compared."""
    del max_depth
    there, here = _shown("densepose", true, t), _shown("densepose", found, t)
    error = _agreement(true.values[t, ..., 0], found.values[t, ..., 0])
    return [Panel("truth", there), Panel("prediction", here), replace(error, caption=f"parts: {error.caption}")]


def _shown(task: str, value: Any, t: int) -> Image:
    """A frame as the modality shows itself."""
    kind = modality(task)
    return np.asarray(kind.show(kind.take(value, slice(t, t + 1)))[0], dtype=np.uint8)


def _nothing(found: Any, true: Any, t: int, max_depth: float) -> list[Panel]:
    del true, max_depth
    frames = found.frames
    change = np.abs(frames[min(t + 1, len(frames) - 1)].astype(np.int16) - frames[t]).mean(axis=-1)
    return [Panel("frame", frames[t]), Panel("change to the next frame: 0 … 64", heat(change, 64))]


_DRAW: Mapping[str, Callable[[Any, Any, int, float], list[Panel]]] = {
    "depth": _depth,
    "flow": _flow,
    "segmentation": _segmentation,
    "skeleton": _skeleton,
    "densepose": _densepose,
    "video": _nothing,
}
