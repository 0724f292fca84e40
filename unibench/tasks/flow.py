"""Optical flow: forward motion in pixels, x right, y down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities.flow import Flow
from unibench.formats import kitti
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.formats.flo import read_flo
from unibench.formats.plain import frames_of, stacked, whole
from unibench.metrics.flow import FlowMetric
from unibench.tasks.base import Estimated, Info, Rates, Setup, Shape, differing
from unibench.tasks.checks import Corruption, Mistake, shifts
from unibench.tasks.drawing import UNKNOWN, Image, Panel, heat


class FlowTask(Estimated[Flow]):
    """`[T-1, H, W, 2]`; a folder holds npz or npy (also `[T-1, 2, H, W]`), or flo or KITTI png for each pair."""

    name = "flow"
    judge = "epe"

    def metric(self, setup: Setup) -> FlowMetric:
        del setup
        return FlowMetric()

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Flow:
        """Vectors above 1e9 (Middlebury) or not finite become NaN. Of truth the npz may also have `occluded`."""
        del info
        file = whole(entry)
        occluded = None
        if file is None:
            motion: npt.NDArray[Any] = stacked([_frame(frame, most) for frame in frames_of(entry)], entry, most)
        else:
            arrays = load_arrays(file, most)
            motion = one_of(arrays, ("flow", "forward", "flows"), file)
            occluded = arrays["occluded"].astype(np.bool_) if "occluded" in arrays else None
        if motion.ndim == 4 and motion.shape[-1] != 2 and motion.shape[1] == 2:
            motion = motion.transpose(0, 2, 3, 1)
        if motion.ndim != 4 or motion.shape[-1] != 2:
            raise InvalidAnnotationError(f"{entry}: flow has shape {motion.shape}; it must be [T-1, H, W, 2]")
        motion = motion.astype(np.float32)
        with np.errstate(invalid="ignore"):
            known = (np.abs(motion) <= 1e9).all(axis=-1, keepdims=True)
        return Flow(np.where(known, motion, np.float32(np.nan)), occluded)

    def arrays(self, value: Flow) -> dict[str, npt.NDArray[Any]]:
        return {"flow": value.forward} | ({} if value.occluded is None else {"occluded": value.occluded})

    def pick(self, value: Flow, index: npt.NDArray[np.int64]) -> Flow:
        raise InvalidAnnotationError("flow of another frame rate cannot be resampled: its vectors span another time")

    def resample(self, value: Flow, shape: Shape, rates: Rates) -> Flow:
        if (rate := differing(rates)) is not None:
            raise InvalidAnnotationError(f"flow at {rate[0]:g} fps cannot be compared with truth at {rate[1]:g} fps")
        return super().resample(value, shape, rates)

    def nothing(self, true: Flow) -> Flow:
        return Flow(np.full_like(true.forward, np.nan))

    def stored_error(self, true: Flow, stored: Flow) -> tuple[float, float]:
        """The step is 1/16 px (of very fast clips more, by powers of two): half its diagonal."""
        longest = float(np.nanmax(np.abs(true.forward), initial=0))
        step = 1 / 16
        while longest > step * 32767:
            step *= 2
        return self.error(stored, true), step / 2 * 2**0.5 + 1e-6

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {"noise": Corruption((0.1, 0.5, 2, 8), _noisy), "scale": Corruption((0.02, 0.1, 0.5, 1), _scaled)}

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (
            Mistake("the flow has the opposite sign (backward where forward is meant)", _with(np.negative)),
            Mistake("rows and columns are swapped (v, u where u, v is meant)", _with(lambda f: f[..., ::-1])),
            Mistake("y points up where down is meant", _with(lambda f: f * _vector(1, -1))),
            Mistake("x points left where right is meant", _with(lambda f: f * _vector(-1, 1))),
            Mistake(
                "the flow is in widths and heights where pixels are meant",
                _with(lambda f: f * _vector(f.shape[2], f.shape[1])),
            ),
            Mistake(
                "the flow is in half widths and heights (−1…1) where pixels are meant",
                _with(lambda f: f * _vector(f.shape[2], f.shape[1]) / 2),
            ),
            self.mirrored(),
            *shifts(),
        )

    def panels(self, predicted: Flow, true: Flow, frame: int, setup: Setup) -> list[Panel]:
        del setup
        t = min(frame, len(true.forward) - 1)
        if t < 0:
            return []
        motion = true.forward[t]
        valid = np.isfinite(motion).all(axis=-1)
        top = max(float(np.quantile(np.linalg.norm(motion[valid], axis=-1), 0.99)), 1.0) if valid.any() else 1.0
        error = np.linalg.norm(np.nan_to_num(predicted.forward[t]) - motion, axis=-1)  # as it is scored
        return [
            Panel(f"truth (full colour: {top:.3g} px)", wheel(motion, top)),
            Panel("prediction", wheel(predicted.forward[t], top)),
            Panel("end-point error: 0 … 5 px", heat(error, 5, valid)),
        ]


def wheel(flow: npt.NDArray[np.floating], top: float) -> Image:
    """Direction as hue, length as saturation (full at `top` pixels); grey where not finite."""
    finite = np.isfinite(flow).all(axis=-1)
    x, y = np.where(finite, flow[..., 0], 0), np.where(finite, flow[..., 1], 0)
    hue = (np.arctan2(y, x) + np.pi) * (179 / (2 * np.pi))
    saturation = 255 * np.clip(np.hypot(x, y) / top, 0, 1)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
    image[~finite] = UNKNOWN
    return image


def _frame(frame: Path, most: int) -> npt.NDArray[np.float32]:
    match frame.suffix.lower():
        case ".flo":
            return read_flo(frame)
        case ".npy":
            return load_arrays(frame, most)[""].astype(np.float32)
        case _:
            try:
                return kitti.read_flow(frame)
            except CorruptDataError as error:
                raise InvalidAnnotationError(
                    f"{error} If it is flow drawn in colours, for people: save the vectors as flo, npy or npz"
                ) from error


def _noisy(true: Flow, strength: float, rng: np.random.Generator) -> Flow:
    noise = strength * rng.standard_normal(true.forward.shape)
    return Flow(true.forward + noise.astype(np.float32), true.occluded)


def _scaled(true: Flow, strength: float, rng: np.random.Generator) -> Flow:
    del rng
    return Flow(true.forward * np.float32(1 + strength), true.occluded)


def _with(change: Callable[[Any], Any]) -> Callable[[Flow], Flow]:
    return lambda flow: Flow(change(flow.forward), flow.occluded)


def _vector(x: float, y: float) -> Any:
    return np.array([x, y], np.float32)
