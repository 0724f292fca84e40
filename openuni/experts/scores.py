"""Numbers by which clips are chosen, measured on the stored frames and on the columns that the dataset has.

No number is a verdict: each has a unit, and `openuni select` sets the thresholds, again and again, without measuring
anew. docs/selecting.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import perceptual
from openuni.experts.base import DecodedClip, Expert, Measured, Resources
from openuni.modalities import Box, Frames
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation

Gray = npt.NDArray[np.uint8]
"""Luminance `[T, H, W]`."""
Floats = npt.NDArray[np.floating[Any]]

_SAME = 0.5
"""Mean difference, in levels of 255, up to which a frame repeats the one before, coded again."""
_BAR_NOISE = 12
"""Levels by which a bar's pixels may lie off its colour: what a codec leaves of a hard edge."""
_BAR_EDGE = 0.5
"""Share of a line that must differ from the bar's colour in some frame for the picture to begin there."""
_SAMPLED = 8
"""Frames, spread over the clip, on which sharpness, exposure and bars are measured."""
_DARK, _BRIGHT = 5, 250
_GRID = 48
"""Points along the longer side at which a camera's motion is fitted."""
_SEEN = 0.3
"""Score from which a joint is taken for seen."""


class Scores(Expert):
    """Motion, rest, flicker, sharpness, exposure, bars, camera and people of a clip as numbers, and hashes of it.

    `motion` and the `camera_…` come from the dataset's flow, the people from its segmentation or skeleton; without
    such a column, or where a clip lacks it, those numbers are missing. Frames alone give the rest.
    """

    name = "scores"
    version = 1
    modality = "scores"
    license = "Apache-2.0"
    resources = Resources(cpus=1, memory_gib=1.0)
    reads = ("flow", "segmentation", "skeleton")
    seconds_per_frame = 0.01

    def annotate(self, clip: DecodedClip) -> Annotation[Measured]:
        cv2.setNumThreads(self.resources.cpus)
        gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames])
        sampled = clip.frames[spread(len(clip.frames), _SAMPLED)]
        picture = picture_box(sampled)  # as `sampled_picture`
        scores = {**over_time(gray), **bars(picture, *clip.frames.shape[1:3]), **exposure(sampled, picture)}
        found = {name: annotation.value for name, annotation in clip.annotations.items()}
        if isinstance(flow := found.get("flow"), Flow):
            scores |= motion(flow, clip.fps)
        scores |= people(found)
        return Annotation(Measured(perceptual.clip_hashes(clip.frames, picture)), scores=scores)


def spread(frames: int, count: int) -> npt.NDArray[np.intp]:
    """Up to `count` frame numbers, in the middle of equal parts of a clip.

    Example:
        >>> spread(10, 3).tolist()
        [1, 5, 8]
    """
    count = min(count, frames)
    return ((np.arange(count) + 0.5) * frames / count).astype(np.intp)


def over_time(gray: Gray) -> dict[str, float]:
    """`static` and `flicker` of luminance `[T, H, W]`; nothing of a clip too short to tell.

    `static`, share of pairs of neighbouring frames, 0–1: the frame is the one before again (mean difference ≤ .5
    levels). `flicker`, levels of 255: how far a frame's mean luminance lies from the mean of its two neighbours', on
    average; a fade, however fast, has none.

    Example:
        >>> frames = np.zeros((5, 4, 4), np.uint8)
        >>> frames[1::2] = 20
        >>> over_time(frames)
        {'static': 0.0, 'flicker': 20.0}
    """
    scores: dict[str, float] = {}
    if len(gray) > 1:
        same = [cv2.absdiff(a, b).mean() <= _SAME for a, b in pairwise(gray)]
        scores["static"] = float(np.mean(same))
    if len(gray) > 2:
        level = gray.mean(axis=(1, 2))
        scores["flicker"] = float(np.abs(level[1:-1] - (level[:-2] + level[2:]) / 2).mean())
    return scores


def picture_box(frames: Frames) -> Box:
    """Where the picture is in frames `[N, H, W, 3]`: all but bars of one colour, black or not, along the edges.

    A bar keeps its colour over its whole length in all frames, and ends at a straight edge: along half of the first
    line behind it something else is seen in some frame. So a night sky is no bar. Frames of one colour throughout have
    no bars.
    """
    _, height, width, _ = frames.shape
    top, bottom = _bar(frames), _bar(frames[:, ::-1])
    inner = frames[:, top : height - bottom].transpose(0, 2, 1, 3)
    left, right = _bar(inner), _bar(inner[:, ::-1])
    return Box(left, top, width - right, height - bottom)


def sampled_picture(frames: Frames) -> Box:
    """Where the picture of a whole clip `[T, H, W, 3]` is, from eight frames spread over it."""
    return picture_box(frames[spread(len(frames), _SAMPLED)])


def _bar(frames: Frames) -> int:
    """Height of the bar at the top of `[N, H, W, 3]`, less than half of H; 0 where there is none."""
    most = frames.shape[1] // 2
    colour = np.median(frames[:, 0].reshape(-1, 3), axis=0).astype(np.int16)
    for line in range(most):
        off = np.abs(frames[:, line].astype(np.int16) - colour).max(axis=-1) > _BAR_NOISE
        if off.mean() <= 0.02:  # specks
            continue
        # What a codec smears over the edge may take a line.
        behind = frames[:, line : line + 2].astype(np.int16)
        differs = (np.abs(behind - colour).max(axis=-1) > _BAR_NOISE).any(axis=(0, 1))
        return line if differs.mean() >= _BAR_EDGE else 0
    return 0


def bars(picture: Box, height: int, width: int) -> dict[str, float]:
    """`letterbox`, `pillarbox` and `border`, shares 0–1: of the height above and below the picture, of the width
    beside it, of the frame's area around it.

    Example:
        >>> bars(Box(0, 12, 96, 84), height=96, width=96)
        {'letterbox': 0.25, 'pillarbox': 0.0, 'border': 0.25}
    """
    tall, wide = (picture.y1 - picture.y0) / height, (picture.x1 - picture.x0) / width
    return {"letterbox": 1 - tall, "pillarbox": 1 - wide, "border": 1 - tall * wide}


def exposure(frames: Frames, picture: Box) -> dict[str, float]:
    """`sharpness`, `brightness`, `underexposed` and `overexposed` of the picture in frames `[N, H, W, 3]`.

    `sharpness`, levels² of 255: variance of the Laplacian of luminance at the stored size (Pech-Pacheco et al., ICPR
    2000), the median over the frames; it compares clips of one size. `brightness`, 0–1: mean luminance.
    `underexposed` and `overexposed`, shares of pixels, 0–1: luminance of at most 5, and of at least 250 levels.
    """
    gray = [
        cv2.cvtColor(np.ascontiguousarray(frame[picture.y0 : picture.y1, picture.x0 : picture.x1]), cv2.COLOR_RGB2GRAY)
        for frame in frames
    ]
    everything = np.stack(gray)
    return {
        "sharpness": float(np.median([cv2.Laplacian(one, cv2.CV_32F).var() for one in gray])),
        "brightness": float(everything.mean() / 255),
        "underexposed": float((everything <= _DARK).mean()),
        "overexposed": float((everything >= _BRIGHT).mean()),
    }


def motion(flow: Flow, fps: float) -> dict[str, float]:
    """`motion` and the `camera_…` of a clip's flow; nothing where no motion is known.

    `motion`, diagonals of the frame a second: mean speed of the known pixels in px/s, over the diagonal in px.

    The camera's are of a shift, a zoom and a roll fitted to each pair of frames, robustly, so that what moves before a
    scene that fills more than half of the frame does not count; the median over time. `camera_x` and `camera_y`,
    diagonals a second: how fast the scene shifts to the right and down (a camera that pans right shifts it to the
    left). `camera_zoom`, 1/s: by which share the scene grows a second. `camera_roll`, rad/s, clockwise.
    `camera_shake`, diagonals a second: deviation of the shift from its median, root mean square. `camera_fit`, share
    of pixels, 0–1: moved within a pixel, or a tenth of their motion, of what the fit says.
    """
    _, height, width, _ = flow.forward.shape
    speed = np.linalg.norm(flow.forward, axis=-1)
    if not len(speed) or np.isnan(speed).all():
        return {}
    diagonal = float(np.hypot(height, width))
    fits = [fit for pair in range(len(flow.forward)) if (fit := fit_camera(flow, pair)) is not None]
    scores = {"motion": float(np.nanmean(speed)) * fps / diagonal}
    if not fits:
        return scores
    shift_x, shift_y, zoom, roll, fitting = np.median(fits, axis=0)
    shifts = np.array(fits)[:, :2] - (shift_x, shift_y)
    return scores | {
        "camera_x": float(shift_x * fps / diagonal),
        "camera_y": float(shift_y * fps / diagonal),
        "camera_zoom": float(zoom * fps),
        "camera_roll": float(roll * fps),
        "camera_shake": float(np.sqrt(np.square(shifts).sum(axis=1).mean()) * fps / diagonal),
        "camera_fit": float(fitting),
    }


def fit_camera(flow: Flow, pair: int) -> tuple[float, float, float, float, float] | None:
    """Shift x and y in px, growth, turn in radians and the share that fits, of one pair of frames; None: unknown.

    u = a + s·x − r·y and v = b + r·x + s·y around the frame's centre, by least squares with Cauchy's weights, at
    points that are known and not occluded.
    """
    _, height, width, _ = flow.forward.shape
    step = max(1, max(height, width) // _GRID)
    field = flow.forward[pair, ::step, ::step]
    known = ~np.isnan(field[..., 0])
    if flow.occluded is not None:
        known &= ~flow.occluded[pair, ::step, ::step]
    if np.count_nonzero(known) < 16:
        return None
    y, x = np.nonzero(known)
    x, y = x * step + 0.5 - width / 2, y * step + 0.5 - height / 2
    moved = field[known].astype(np.float64)
    zero, one = np.zeros(len(x)), np.ones(len(x))
    design = np.concatenate([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)])
    target = np.concatenate([moved[:, 0], moved[:, 1]])
    # From the median shift: it is right about most of the picture before anything is fitted.
    fit = np.array([*np.median(moved, axis=0), 0.0, 0.0])
    for _ in range(20):
        off = np.hypot(*(target - design @ fit).reshape(2, -1))
        scale = max(1.4826 * float(np.median(off)), 0.05)
        weight = 1 / (1 + np.square(off / scale / 2.385))
        root = np.sqrt(np.tile(weight, 2))
        fit = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
    off = np.hypot(*(target - design @ fit).reshape(2, -1))
    fitting = float((off <= np.maximum(1.0, 0.1 * np.linalg.norm(moved, axis=1))).mean())
    return float(fit[0]), float(fit[1]), float(fit[2]), float(fit[3]), fitting


def people(found: Mapping[str, object]) -> dict[str, float]:
    """`people_mean`, `people_most` and `person_area`, of what the dataset knows of the clip; nothing without either.

    `people_mean` and `people_most`, persons: in a frame on average, and in the fullest one; of the skeletons (a joint
    with a score of at least .3), else of the segmentation. `person_area`, share of the frame, 0–1: of the largest
    person in a frame, the mean over the frames with one; of the masks, else of the skeletons' boxes. 0 without people.
    """
    segmentation, skeleton = found.get("segmentation"), found.get("skeleton")
    counts: Floats | None = None
    areas: Floats | None = None
    if isinstance(segmentation, Segmentation):
        areas = _mask_areas(segmentation)
        counts = (areas > 0).sum(axis=1)
    if isinstance(skeleton, Skeleton):
        seen = (skeleton.body.keypoints[..., 2] >= _SEEN).any(axis=-1)  # [T, P]
        counts = seen.sum(axis=1)
        if areas is None:
            areas = np.where(seen, _box_areas(skeleton), 0.0)
    if counts is None or areas is None:
        return {}
    largest = areas.max(axis=1, initial=0.0)
    with_one = largest[largest > 0]
    return {
        "people_mean": float(counts.mean()),
        "people_most": float(counts.max()),
        "person_area": float(with_one.mean()) if len(with_one) else 0.0,
    }


def _mask_areas(segmentation: Segmentation) -> Floats:
    """Share of the frame of each person in each frame `[T, P]`."""
    persons = [one.id for one in segmentation.instances if one.class_name == "person"]
    size = segmentation.ids[0].size
    return np.array([[np.count_nonzero(ids == one) / size for one in persons] for ids in segmentation.ids]).reshape(
        len(segmentation.ids), len(persons)
    )


def _box_areas(skeleton: Skeleton) -> Floats:
    """Share of the frame of each person's box `[T, P]`, 0 where there is none."""
    box = np.nan_to_num(skeleton.boxes, nan=0.0)
    wide = np.clip(box[..., 2], 0, skeleton.width) - np.clip(box[..., 0], 0, skeleton.width)
    tall = np.clip(box[..., 3], 0, skeleton.height) - np.clip(box[..., 1], 0, skeleton.height)
    areas: Floats = np.maximum(wide, 0) * np.maximum(tall, 0) / (skeleton.width * skeleton.height)
    return areas
