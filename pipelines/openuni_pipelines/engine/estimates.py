"""Scores of single estimates while a model trains: the benchmark's own metrics, of which a few numbers are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openuni.modalities.depth import Depth
from unibench.metrics.depth import DepthMetric, DepthTruth
from unibench.metrics.flow import FlowMetric
from unibench.metrics.segmentation import SegmentationMetric


def score_estimate(view: str, estimate: Any, truth: Any) -> Mapping[str, float]:
    """Depth AbsRel, flow EPE (pixels of the model's size) and mean IoU of objects (J); nothing for other views.

    Depth is aligned by scale and shift of disparity. Where the truth itself is not depth but an expert's disparity,
    its values stand for disparities above one tenth of their range, so such numbers compare between steps of a run
    only. Objects are matched whatever their class, which a picture does not carry.
    """
    if view == "depth":
        metric = DepthMetric(np.inf, ("disparity",))
        return {"absrel": metric.update("", estimate, DepthTruth(_as_depth(truth)))["disparity/absrel"].value}
    if view == "flow":
        return {"epe": FlowMetric().update("", estimate, truth)["epe"].value}
    if view == "segmentation":
        return {"miou": SegmentationMetric().update("", estimate, truth)["j"].value}
    return {}


def _as_depth(truth: Depth) -> np.ndarray[Any, np.dtype[np.floating]]:
    if truth.kind != "affine_disparity":
        return truth.values
    low, high = (np.nanmin(truth.values), np.nanmax(truth.values)) if np.isfinite(truth.values).any() else (0, 0)
    depth: np.ndarray[Any, np.dtype[np.floating]] = 1 / (0.1 + (truth.values - low) / max(high - low, 1e-12))
    return depth
