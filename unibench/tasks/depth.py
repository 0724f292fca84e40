"""Depth: metric, up to scale, or affine disparity, against metres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.modalities import geometry
from openuni.modalities.depth import Depth, DepthKind
from openuni.modalities.flow import Flow
from unibench.camera import Camera
from unibench.formats import colormaps, exr
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.formats.plain import VIDEO, frames_of, read_grey, read_video, stacked, whole
from unibench.metrics.base import Bools
from unibench.metrics.consistency import rigid_flow
from unibench.metrics.depth import (
    ALIGNMENTS,
    MAX_DEPTH,
    DepthMetric,
    DepthTruth,
    apply_fit,
    fit,
    valid_truth,
)
from unibench.tasks.base import Estimated, Info, Run, Setup, Shape, Variants
from unibench.tasks.checks import Corruption, Finding, Mistake, shifts
from unibench.tasks.drawing import UNKNOWN, Image, Panel, heat


@dataclass(frozen=True, slots=True)
class DepthOptions:
    """What depth files mean. `metres` is the value of one step of a png's code."""

    kind: DepthKind | None = None
    metres: float = 1.0


class DepthTask(Estimated[Depth]):
    """`[T, H, W]`; a folder holds npz, npy, grey png or pgm, exr or video, whose kind must be said."""

    name = "depth"
    judge = "disparity/absrel"
    Options = DepthOptions
    variants: ClassVar[Variants] = Variants(
        "alignment", ALIGNMENTS, ("absrel", "absrel_pixels", "delta1", "delta2", "delta3", "rmse"), ("absrel", "delta1")
    )

    @property
    def rests_on(self) -> tuple[str, ...]:
        # The temporal error follows what stands still, by the true flow and the cameras.
        return ("depth", "flow", "camera")

    def metric(self, setup: Setup) -> DepthMetric:
        return DepthMetric(setup.max_depth, setup.alignments)

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Depth:
        """Zeros and negatives of a depth kind become NaN. Raises where the kind was not said."""
        options: DepthOptions = self.options(info)
        if options.kind is None:
            raise OpenUniError(
                f"{entry}: say what these numbers are, by --depth-kind or in predictions.json: "
                '{"depth": {"kind": "metric"}} (metres), "relative" (up to scale) or "affine_disparity" (larger is '
                "nearer)"
            )
        values = _read(entry, options.metres, most)
        values = np.squeeze(values, axis=-1) if values.ndim == 4 and values.shape[-1] == 1 else values
        values = np.squeeze(values, axis=1) if values.ndim == 4 and values.shape[1] == 1 else values
        if values.ndim != 3:
            raise InvalidAnnotationError(f"{entry}: depth has shape {values.shape}; it must be [T, H, W]")
        values = values.astype(np.float32)
        with np.errstate(invalid="ignore"):
            bad = ~np.isfinite(values) if options.kind == "affine_disparity" else ~(np.isfinite(values) & (values > 0))
        return Depth(np.where(bad, np.float32(np.nan), values), options.kind)

    def load_truth(self, truth: Run, key: str) -> DepthTruth:
        true: Depth = truth.load("depth", key)
        if true.kind != "metric":
            raise InvalidAnnotationError(f"{key}: the truth is {true.kind} depth; scores need metres")
        camera = truth.camera(key)
        if camera is None:
            return DepthTruth(true.values)
        camera = camera.cut(len(true.values))
        still = None
        if "flow" in truth.values():
            with suppress(AbsentModalityError):
                still = standing_still(true, truth.load("flow", key), camera)
        return DepthTruth(true.values, camera.intrinsics, camera.pose, still)

    def size(self, true: Any) -> Shape:
        frames, height, width = true.values.shape
        return frames, height, width

    def compared(self, predicted: Depth, true: Any) -> tuple[Depth, DepthTruth]:
        return predicted, true if isinstance(true, DepthTruth) else DepthTruth(true.values)

    def arrays(self, value: Depth) -> dict[str, npt.NDArray[Any]]:
        return {"depth": value.values}

    def pick(self, value: Depth, index: npt.NDArray[np.int64]) -> Depth:
        return replace(value, values=value.values[index])

    def resize(self, value: Depth, height: int, width: int) -> Depth:
        """Bilinear (as DepthCrafter and Video Depth Anything do); the nearest pixel where a neighbour is NaN."""
        near = geometry.nearest(value.values, height, width)
        smooth = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in value.values])
        return replace(value, values=np.where(np.isfinite(smooth) & np.isfinite(near), smooth, near))

    def nothing(self, true: Any) -> Depth:
        return Depth(np.full_like(true.values, np.nan), "metric")

    def judging(self, column: str) -> Setup:
        alignment = column.split("/")[0]
        return Setup(alignments=(alignment,) if alignment in ALIGNMENTS else ("disparity",))

    def stored_error(self, true: Depth, stored: Depth) -> tuple[float, float]:
        """Judged without alignment: the stored step of disparity bounds AbsRel."""
        disparity = 1 / true.values[np.isfinite(true.values)].astype(np.float64)
        step = (disparity.max() - disparity.min()) / 65534 if disparity.size else 0.0
        # z·½step is the first order of the relative error; float32 adds its own.
        bound = 0.5 * step * min(float(1 / disparity.min()), MAX_DEPTH) * 1.01 + 1e-6 if disparity.size else 0.0
        return self.error(stored, true, "metric/absrel"), bound

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {"noise": Corruption((0.02, 0.05, 0.1, 0.2), _noisy), "blur": Corruption((1, 2, 4, 8), _blurred)}

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (
            Mistake("depth was given as disparity, or disparity as depth", _inverse),
            Mistake("the depth is in centimetres", _metric_with(lambda v: v / 100), "metric/absrel", 0.2),
            Mistake("the depth is in millimetres", _metric_with(lambda v: v / 1000), "metric/absrel", 0.2),
            *(
                Mistake(
                    "the depth is radial (along the ray) where planar is meant, for a focal length of "
                    f"{focal:g} widths",
                    _planar(focal),
                    # A shift of disparity would hide most of it; a scale alone leaves centre and corners apart.
                    "scale/absrel",
                    gain=0.8,
                )
                for focal in (0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.5, 2)
            ),
            self.mirrored(),
            *shifts(),
        )

    def suspect(self, pairs: Sequence[tuple[Depth, Depth]]) -> Finding | None:
        """Near and far exchanged: no score shows it, because least squares just fits a negative scale."""
        fits = [fit(predicted, true.values, valid_truth(true.values), "disparity") for predicted, true in pairs]
        turned = [fitted is not None and fitted.scale < 0 for fitted in fits]
        if not turned or np.mean(turned) < 0.8:
            return None
        median = float(np.median([self.error(predicted, true) for predicted, true in pairs]))
        mistake = "near and far are exchanged (the alignment fits a negative scale)"
        return Finding("depth", mistake, self.judge, median, median, len(pairs))

    def panels(self, predicted: Depth, true: Any, frame: int, setup: Setup) -> list[Panel]:
        return self.comparison(predicted, true, setup)(frame)

    def comparison(self, predicted: Depth, true: Any, setup: Setup) -> Callable[[int], list[Panel]]:
        """Aligned over the whole clip."""
        valid = valid_truth(true.values, setup.max_depth)
        fitted = fit(predicted, true.values, valid, "disparity")
        if not valid.any() or fitted is None:
            return lambda frame: []
        low, high = np.nanquantile(1 / true.values[valid], [0.005, 0.995])

        def panels(frame: int) -> list[Panel]:
            here = replace(predicted, values=predicted.values[frame : frame + 1])
            aligned = apply_fit(here, fitted, setup.max_depth)[0]
            truth = np.where(valid[frame], true.values[frame], np.nan)
            error = np.abs(aligned - truth) / truth
            return [
                Panel("truth (disparity)", _shades(1 / truth, low, high)),
                Panel("prediction, aligned", _shades(1 / aligned, low, high)),
                Panel("|d − d*| / d*: 0 … 0.5", heat(error, 0.5, valid[frame])),
            ]

        return panels


def standing_still(depth: Depth, flow: Flow, camera: Camera) -> Bools:
    """Pixels `[T, H, W]` whose true flow is that of a still scene, to half a pixel; none in a frame without flow."""
    still = np.zeros(depth.values.shape, np.bool_)
    for t, motion in enumerate(flow.forward):
        gap = np.linalg.norm(motion - rigid_flow(depth.values[t].astype(np.float64), camera, t), axis=-1)
        with np.errstate(invalid="ignore"):
            still[t] = gap < 0.5
    if flow.backward is not None and len(flow.backward):
        back = replace(camera, intrinsics=camera.intrinsics[::-1], pose=camera.pose[::-1])
        gap = np.linalg.norm(flow.backward[-1] - rigid_flow(depth.values[-1].astype(np.float64), back, 0), axis=-1)
        with np.errstate(invalid="ignore"):
            still[-1] = gap < 0.5
    return still


def _read(entry: Path, metres: float, most: int) -> npt.NDArray[Any]:
    file = whole(entry)
    if file is None:
        return stacked([_frame(frame, metres, most) for frame in frames_of(entry)], entry, most)
    if file.suffix.lower() in VIDEO:
        return np.asarray(colormaps.grey(read_video(file, most)[0], file), np.float32)
    return one_of(load_arrays(file, most), ("depth", "depths", "disparity", "values"), file)


def _frame(frame: Path, metres: float, most: int) -> npt.NDArray[np.float32]:
    match frame.suffix.lower():
        case ".npy":
            return load_arrays(frame, most)[""].astype(np.float32)
        case ".exr":
            return exr.read_depth(frame)
        case _:
            return read_grey(frame) * np.float32(metres)


def _noisy(true: Depth, strength: float, rng: np.random.Generator) -> Depth:
    return replace(
        true, values=true.values * np.exp(strength * rng.standard_normal(true.values.shape)).astype(np.float32)
    )


def _blurred(true: Depth, strength: float, rng: np.random.Generator) -> Depth:
    del rng
    if strength == 0:
        return true
    filled = np.where(np.isfinite(true.values), true.values, np.float32(MAX_DEPTH))
    return replace(true, values=np.stack([cv2.GaussianBlur(f, (0, 0), strength) for f in filled]))


def _metric_with(change: Callable[[Any], Any]) -> Callable[[Depth], Depth | None]:
    def undo(depth: Depth) -> Depth | None:
        if depth.kind != "metric":
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(depth, values=np.asarray(change(depth.values), dtype=np.float32))

    return undo


def _inverse(depth: Depth) -> Depth:
    """Depth for disparity, or disparity for depth."""
    return Depth(depth.values, "relative" if depth.kind == "affine_disparity" else "affine_disparity")


def _planar(focal: float) -> Callable[[Depth], Depth | None]:
    """Distance along the ray → along the axis, for a focal length in widths of the frame."""

    def undo(depth: Depth) -> Depth | None:
        if depth.kind == "affine_disparity":
            return None
        _, height, width = depth.values.shape
        y, x = np.mgrid[0:height, 0:width]
        ray = np.stack([(x + 0.5 - width / 2), (y + 0.5 - height / 2)]) / (focal * width)
        return replace(depth, values=(depth.values / np.sqrt(1 + (ray**2).sum(axis=0))).astype(np.float32))

    return undo


def _shades(values: npt.NDArray[np.floating], low: float, high: float) -> Image:
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    shades = cv2.applyColorMap((255 * np.nan_to_num(level)).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    image = np.asarray(cv2.cvtColor(shades, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    image[np.isnan(values)] = UNKNOWN
    return image
