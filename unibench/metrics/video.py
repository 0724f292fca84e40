"""Generated video: eight dimensions of VBench (Huang et al. 2024, arXiv:2311.17982), their arithmetic, nothing else.

Learned measures (features, flow, an interpolator, scorers) come in as functions, `Measures`. A dimension whose measure
is missing is undefined with the reason, never estimated by something else under its name; a stand-in has its own
column, named after what measures (`dis_dynamic_degree`). Frames are RGB uint8 `[T, H, W, 3]`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from unibench.metrics.base import UNDEFINED, Column, Floats, Metric, Score, Scores, mean_score

Frame = npt.NDArray[np.uint8]
Frames = npt.NDArray[np.uint8]
FlowBetween = Callable[[Frame, Frame], npt.NDArray[np.floating]]
"""Flow `[H, W, 2]` in pixels from one RGB frame `[H, W, 3]` to another."""


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A generated clip and the prompt it was made from (None: made from none)."""

    frames: Frames
    fps: float
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Measures:
    """What the dimensions are measured with; None where the weights are absent (`unibench.networks` says why)."""

    subject: Callable[[Frames], Floats] | None = None
    """DINO ViT-B/16 features of each frame, `[T, D]` (shorter side 224, no crop, no antialiasing)."""
    background: Callable[[Frames], Floats] | None = None
    """CLIP ViT-B/32 image features of each whole frame, `[T, D]`."""
    flow: FlowBetween | None = None
    """RAFT (trained on Things), 20 iterations; as in VBench, of frames padded to multiples of 8."""
    interpolate: Callable[[Frame, Frame], Frame] | None = None
    """AMT-S: the frame half way between two."""
    aesthetic: Callable[[Frames], Floats] | None = None
    """LAION's linear head over normalised CLIP ViT-L/14 features: a score of about 1–10 for each frame `[T]`."""
    imaging: Callable[[Frames], Floats] | None = None
    """MUSIQ (SPAQ), longer side at most 512: a score of 0–100 for each frame `[T]`."""
    overall: Callable[[Frames, str], float] | None = None
    """ViCLIP: cosine between 8 frames `[8, H, W, 3]` and the prompt."""
    smallest: int = 0
    """Videos with a shorter side than this have neither flow nor interpolated frames: their networks need more."""


def consistency(features: Floats) -> float:
    """Mean over frames i ≥ 1 of ½·(max(0, cos(f_{i−1}, f_i)) + max(0, cos(f_0, f_i))); `features` `[T, D]`.

    Subject consistency with DINO features, background consistency with CLIP's. NaN for one frame.
    """
    if len(features) < 2:
        return math.nan
    unit = features.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    previous = np.maximum((unit[:-1] * unit[1:]).sum(axis=1), 0)
    first = np.maximum(unit[1:] @ unit[0], 0)
    return float(((previous + first) / 2).mean())


def temporal_flickering(frames: Frames) -> float:
    """(255 − mean |f_t − f_{t+1}|) / 255, the mean over pairs, pixels and channels; NaN for one frame."""
    if len(frames) < 2:
        return math.nan
    changes = [float(cv2.absdiff(a, b).mean()) for a, b in itertools.pairwise(frames)]
    return (255 - float(np.mean(changes))) / 255


def motion_smoothness(frames: Frames, interpolate: Callable[[Frame, Frame], Frame]) -> float:
    """(255 − mean |odd frame − the frame interpolated from its even neighbours|) / 255; NaN for under three frames."""
    even = frames[::2]
    if len(even) < 2:
        return math.nan
    misses = [
        float(cv2.absdiff(frames[2 * i + 1], interpolate(even[i], even[i + 1])).mean()) for i in range(len(even) - 1)
    ]
    return (255 - float(np.mean(misses))) / 255


def top_motion(flow: npt.NDArray[np.floating], share: float) -> float:
    """Mean length of the longest `share` of the vectors `[H, W, 2]`, in pixels; NaN where that is less than one."""
    length = np.hypot(flow[..., 0].astype(np.float64), flow[..., 1]).ravel()
    count = int(length.size * share)
    if count == 0:
        return math.nan
    return float(np.partition(length, length.size - count)[-count:].mean())


@dataclass(frozen=True, slots=True)
class Dynamics:
    """Whether a video moves, and by how much: the motion that decides, in pixels at 256 pixels' shorter side.

    `dynamic` is `motion > 6`; NaN and False for one frame.
    """

    dynamic: bool
    motion: float


def dynamic_degree(frames: Frames, fps: float, flow: FlowBetween) -> Dynamics:
    """VBench's dynamic degree. Every max(1, round(fps/8))-th frame counts, N of them.

    A pair moves if the mean of its longest 5 % of vectors exceeds 6·min(H, W)/256 px; the video does if round(4·N/16)
    pairs move (if there is a pair and that rounds to 0, it does). The motion that decides is the round(4·N/16)-th
    largest of the pairs.
    """
    chosen = frames[:: max(1, round(fps / 8))]
    if len(chosen) < 2:
        return Dynamics(False, math.nan)
    scale = 256 / min(frames.shape[1:3])
    motions = sorted((scale * top_motion(flow(a, b), 0.05) for a, b in itertools.pairwise(chosen)), reverse=True)
    needed = round(4 * (len(chosen) / 16))
    if needed > len(motions):
        return Dynamics(False, math.nan)
    deciding = motions[max(needed, 1) - 1]
    return Dynamics(needed == 0 or deciding > 6, deciding)


def is_static(frames: Frames, flow: FlowBetween) -> bool:
    """VBench's static filter, which chooses the videos that flickering is measured on.

    A pair moves if the mean of its longest 2 % of vectors exceeds 3·min(H, W)/256 px. A video is static if at most
    round(2·N/16) neighbouring pairs move and neither first→last nor last→first exceeds 2·round(2·N/16) times that.
    """
    threshold = 3 * min(frames.shape[1:3]) / 256
    allowed = round(2 * (len(frames) / 16))
    moving = sum(top_motion(flow(a, b), 0.02) > threshold for a, b in itertools.pairwise(frames))
    if moving > allowed:
        return False
    ends = (frames[0], frames[-1]), (frames[-1], frames[0])
    return all(top_motion(flow(a, b), 0.02) <= threshold * allowed * 2 for a, b in ends)


def middle_frames(frames: Frames, count: int = 8) -> Frames:
    """`count` frames at the middles of equal spans of the clip; of a shorter clip all, then the last one repeated."""
    edges = np.linspace(0, len(frames), min(count, len(frames)) + 1).astype(np.int64)
    chosen = (edges[:-1] + edges[1:] - 1) // 2
    return frames[np.pad(chosen, (0, count - len(chosen)), mode="edge")]


NORMALISATION: Mapping[str, tuple[float, float]] = {
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "dynamic_degree": (0.0, 1.0),
    "aesthetic_quality": (0.0, 1.0),
    "imaging_quality": (0.0, 1.0),
    "overall_consistency": (0.0, 0.364),
}
"""Smallest and largest score of each dimension that VBench's totals map to 0 and 1."""
_QUALITY = tuple(name for name in NORMALISATION if name != "overall_consistency")


def normalised(values: Mapping[str, float]) -> dict[str, float]:
    """Each dimension mapped by VBench's range (not clipped, as there); NaN stays NaN."""
    return {name: (values[name] - low) / (high - low) for name, (low, high) in NORMALISATION.items()}


def quality_score(values: Mapping[str, float]) -> float:
    """VBench's quality score of a set: the weighted mean of seven normalised dimensions, dynamic degree counting half.

    NaN if one of the seven is. (VBench's total also needs nine semantic dimensions, of which only overall consistency
    is measured here, so there is no total.)
    """
    scaled = normalised(values)
    weights = {name: 0.5 if name == "dynamic_degree" else 1.0 for name in _QUALITY}
    return sum(weights[name] * scaled[name] for name in _QUALITY) / sum(weights.values())


_COLUMNS = (
    Column("subject_consistency", "higher", "", "cosines of DINO features with the previous and the first frame"),
    Column("background_consistency", "higher", "", "the same with CLIP ViT-B/32, of the middle square"),
    Column(
        "temporal_flickering", "higher", "", "1 − mean change between neighbouring frames, of videos that stand still"
    ),
    Column("motion_smoothness", "higher", "", "1 − mean error of odd frames interpolated by AMT-S"),
    Column("dynamic_degree", "higher", "", "share of videos that move, by RAFT"),
    Column("dynamic_degree_motion", "neither", "px", "the motion behind it, at 256 px; > 6 is dynamic"),
    Column("aesthetic_quality", "higher", "", "LAION aesthetic score / 10"),
    Column("imaging_quality", "higher", "", "MUSIQ / 100"),
    Column("overall_consistency", "higher", "", "ViCLIP cosine between video and prompt, of videos that have one"),
    Column("quality_score", "higher", "", "VBench's quality score over its seven dimensions"),
    Column("flickering_unfiltered", "higher", "", "flickering of every video, moving or not; stand-in, not VBench's"),
    Column("dis_dynamic_degree", "higher", "", "share of videos that move, by OpenCV's DIS; stand-in, not VBench's"),
    Column("dis_motion", "neither", "px", "the motion behind it, at 256 px"),
)


class VideoMetric(Metric[Video, None]):
    """VBench's dimensions, as far as their measures are at hand, and stand-ins under their own names."""

    task: ClassVar[str] = "video"
    columns: ClassVar[tuple[Column, ...]] = _COLUMNS
    primary: ClassVar[str] = "flickering_unfiltered"

    def __init__(self, measures: Measures | None = None) -> None:
        self.measures = measures or Measures()
        self._sums = dict.fromkeys(_QUALITY, (0.0, 0.0))

    def update(self, key: str, prediction: Video, truth: None = None) -> Scores:
        """Score one clip."""
        del key, truth
        frames, measures = prediction.frames, self.measures
        if min(frames.shape[1:3]) < measures.smallest:
            measures = replace(measures, flow=None, interpolate=None)
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        scores["flickering_unfiltered"] = mean_score(temporal_flickering(frames))
        if measures.subject is not None:
            # VBench pools these two over frames: its set's score is Σ over all pairs / their number.
            scores["subject_consistency"] = _weighted(consistency(measures.subject(frames)), len(frames) - 1)
        if measures.background is not None:
            scores["background_consistency"] = _weighted(consistency(measures.background(frames)), len(frames) - 1)
        if measures.flow is not None:
            dynamics = dynamic_degree(frames, prediction.fps, measures.flow)
            scores["dynamic_degree"] = Score(float(dynamics.dynamic))
            scores["dynamic_degree_motion"] = mean_score(dynamics.motion)
            if len(frames) > 1 and is_static(frames, measures.flow):
                scores["temporal_flickering"] = scores["flickering_unfiltered"]
        if measures.interpolate is not None:
            scores["motion_smoothness"] = mean_score(motion_smoothness(frames, measures.interpolate))
        if measures.aesthetic is not None:
            scores["aesthetic_quality"] = mean_score(float(np.mean(measures.aesthetic(frames))) / 10)
        if measures.imaging is not None:
            scores["imaging_quality"] = mean_score(float(np.mean(measures.imaging(frames))) / 100)
        if measures.overall is not None and prediction.prompt is not None:
            scores["overall_consistency"] = Score(measures.overall(middle_frames(frames), prediction.prompt))
        by_dis = dynamic_degree(frames, prediction.fps, dis_flow)
        scores["dis_dynamic_degree"], scores["dis_motion"] = Score(float(by_dis.dynamic)), mean_score(by_dis.motion)
        self._add({name: (s.weight * s.value, s.weight) for name, s in scores.items() if not math.isnan(s.value)})
        return scores

    def state(self) -> dict[str, Any]:
        """Σ weight·score and Σ weight of each dimension of the quality score."""
        return {name: list(sums) for name, sums in self._sums.items()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        self._add({name: (float(total), float(weight)) for name, (total, weight) in state.items()})

    def compute(self) -> dict[str, float]:
        """The quality score of the whole set."""
        means = {name: total / weight if weight else math.nan for name, (total, weight) in self._sums.items()}
        return {"quality_score": quality_score({**means, "overall_consistency": math.nan})}

    def _add(self, sums: Mapping[str, tuple[float, float]]) -> None:
        for name, (total, weight) in self._sums.items():
            more = sums.get(name, (0.0, 0.0))
            self._sums[name] = total + more[0], weight + more[1]


def _weighted(value: float, weight: float) -> Score:
    return UNDEFINED if math.isnan(value) else Score(value, weight)


def dis_flow(first: Frame, second: Frame) -> npt.NDArray[np.float32]:
    """Flow `[H, W, 2]` by OpenCV's dense inverse search, medium preset: a stand-in that needs no weights."""
    # A used search object keeps buffers that colour its next answer, so each pair gets its own.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    flow: npt.NDArray[np.float32] = search.calc(gray[0], gray[1], None)
    return flow
