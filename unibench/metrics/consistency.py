"""Whether views made together agree: flow warps RGB, carries depth and ids, and moves as depth and camera say.

No truth is needed: every view comes from the same prediction. Point x of frame t is followed by the forward flow to
x + f in frame t+1 and looked up there (RGB bilinearly, else the nearest pixel). Points that leave the frame, that the
flow calls occluded, or where a view is unknown are left out; `followed` says how many remained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Segmentation
from unibench.camera import Camera
from unibench.metrics.base import UNDEFINED, Bools, Column, Floats, Metric, Score, Scores, mean_score

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Views of one clip on one grid of pixels: frames uint8 `[T, H, W, 3]`, the flow, and what else there is."""

    frames: npt.NDArray[np.uint8]
    flow: Flow
    depth: Depth | None = None
    segmentation: Segmentation | None = None
    camera: Camera | None = None


def follow(flow: npt.NDArray[np.floating], occluded: Bools | None) -> tuple[Singles, Singles, Bools]:
    """Where pixel centres go, as `cv2.remap` wants it (x, y `[H, W]`, centres at integers), and which arrive inside."""
    height, width, _ = flow.shape
    x = (np.arange(width, dtype=np.float32) + flow[..., 0]).astype(np.float32)
    y = (np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if occluded is not None:
        inside &= ~occluded
    return np.where(inside, x, 0).astype(np.float32), np.where(inside, y, 0).astype(np.float32), inside


def warp_errors(frames: npt.NDArray[np.uint8], flow: Flow) -> tuple[list[float], list[float]]:
    """For each pair, mean |frame t − frame t+1 at x + f| / 255 over the followed pixels; and that without motion."""
    followed, still = [], []
    for t, motion in enumerate(flow.forward):
        x, y, inside = follow(motion, None if flow.occluded is None else flow.occluded[t])
        here, there = frames[t].astype(np.float32), frames[t + 1].astype(np.float32)
        warped = cv2.remap(there, x, y, cv2.INTER_LINEAR)
        followed.append(_mean(np.abs(here - warped).mean(axis=-1), inside) / 255)
        still.append(_mean(np.abs(here - there).mean(axis=-1), inside) / 255)
    return followed, still


def depth_along_flow(depth: Depth, flow: Flow) -> list[float]:
    """For each pair, the mean over followed pixels of |Δ − median Δ|, Δ the change of log depth along the flow.

    The median takes out one factor a pair, so a depth up to scale can be judged. A thing that comes nearer by itself
    counts as disagreement: small numbers are good only where the scene is mostly still. Empty for affine disparity.
    """
    if depth.kind == "affine_disparity":
        return []
    errors = []
    for t, motion in enumerate(flow.forward):
        x, y, inside = follow(motion, None if flow.occluded is None else flow.occluded[t])
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.log(cv2.remap(depth.values[t + 1], x, y, cv2.INTER_NEAREST)) - np.log(depth.values[t])
        inside &= np.isfinite(change)
        if inside.any():
            kept = change[inside].astype(np.float64)
            errors.append(float(np.abs(kept - np.median(kept)).mean()))
    return errors


def ids_along_flow(segmentation: Segmentation, flow: Flow) -> list[float]:
    """For each pair, the share of followed pixels of instances that meet the same id."""
    shares = []
    for t, motion in enumerate(flow.forward):
        x, y, inside = follow(motion, None if flow.occluded is None else flow.occluded[t])
        inside &= segmentation.ids[t] > 0
        there = segmentation.ids[t + 1][np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
        if inside.any():
            shares.append(float(np.mean((there == segmentation.ids[t])[inside])))
    return shares


def rigid_flow(depth: Floats, camera: Camera, t: int) -> Floats:
    """The flow `[H, W, 2]` from frame t to t+1 of a scene that stands still, from metric depth `[H, W]` and the camera.

    NaN where the depth is unknown or the point passes behind the camera.
    """
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    k, k_next = camera.intrinsics[t], camera.intrinsics[t + 1]
    x = (columns + 0.5 - k[0, 2]) * depth / k[0, 0]
    y = (rows + 0.5 - k[1, 2]) * depth / k[1, 1]
    move = np.linalg.inv(camera.pose[t + 1]) @ camera.pose[t]
    points = np.stack([x, y, depth], axis=-1) @ move[:3, :3].T + move[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        u = points[..., 0] * k_next[0, 0] / z + k_next[0, 2]
        v = points[..., 1] * k_next[1, 1] / z + k_next[1, 2]
    return np.stack([u - columns - 0.5, v - rows - 0.5], axis=-1)


def rigid_disagreement(depth: Depth, flow: Flow, camera: Camera) -> list[float]:
    """For each pair, the median length in pixels of flow − rigid flow: near 0 where most of the scene stands still."""
    medians = []
    for t, motion in enumerate(flow.forward):
        gap = np.linalg.norm(motion - rigid_flow(depth.values[t].astype(np.float64), camera, t), axis=-1)
        gap = gap[np.isfinite(gap)]
        if gap.size:
            medians.append(float(np.median(gap)))
    return medians


def _mean(values: npt.NDArray[np.floating], where: Bools) -> float:
    return float(values[where].astype(np.float64).mean()) if where.any() else math.nan


class ConsistencyMetric(Metric[Views, None]):
    """Agreement of jointly generated RGB, flow, depth and ids."""

    task: ClassVar[str] = "consistency"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("warp_error", "lower", "", "mean |frame − next frame carried back by the flow| / 255"),
        Column("warp_gain", "higher", "", "1 − that error / the error without any motion"),
        Column("followed", "higher", "", "share of pixels that the flow takes to a visible place in the frame"),
        Column("depth_along_flow", "lower", "", "mean |change of log depth along the flow − its median|"),
        Column("ids_along_flow", "higher", "", "share of instances' pixels that meet the same id along the flow"),
        Column("rigid_disagreement", "lower", "px", "median |flow − flow of a still scene of this depth and camera|"),
    )
    primary: ClassVar[str] = "warp_error"

    def update(self, key: str, prediction: Views, truth: None = None) -> Scores:
        """Score one clip. Raises InvalidAnnotationError where its views differ in size or length."""
        del truth
        views = prediction
        frames, height, width, _ = views.frames.shape
        shapes = {"flow": (len(views.flow.forward) + 1, *views.flow.forward.shape[1:3])}
        if views.depth is not None:
            shapes["depth"] = views.depth.values.shape
        if views.segmentation is not None:
            shapes["segmentation"] = views.segmentation.ids.shape
        for name, shape in shapes.items():
            if shape != (frames, height, width):
                raise InvalidAnnotationError(f"{key}: {name} is {shape}, the RGB {(frames, height, width)}")
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        followed, still = warp_errors(views.frames, views.flow)
        scores["warp_error"] = mean_score(followed)
        moved, unmoved = scores["warp_error"].value, mean_score(still).value
        if unmoved > 0:
            scores["warp_gain"] = mean_score(1 - moved / unmoved)
        occluded = views.flow.occluded
        inside = [
            follow(m, None if occluded is None else occluded[t])[2].mean() for t, m in enumerate(views.flow.forward)
        ]
        scores["followed"] = mean_score(inside)
        if views.depth is not None:
            scores["depth_along_flow"] = mean_score(depth_along_flow(views.depth, views.flow))
            if views.camera is not None and views.depth.kind == "metric":
                scores["rigid_disagreement"] = mean_score(rigid_disagreement(views.depth, views.flow, views.camera))
        if views.segmentation is not None:
            scores["ids_along_flow"] = mean_score(ids_along_flow(views.segmentation, views.flow))
        return scores
