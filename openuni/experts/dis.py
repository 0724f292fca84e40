"""Light optical flow: dense inverse search (Kroeger et al., ECCV 2016, arXiv:1603.03590) as in OpenCV.

Good to half a pixel on textured, moderate motion; lost on large motion of thin or untextured things. What it cannot
confirm by going back it marks as occluded.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.modalities.flow import Flow
from openuni.sample import Annotation

Motion = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]

_SMALLEST = 16
"""Shorter side of the smallest frame; dense inverse search needs room for its patches of eight pixels."""
_AGREEING = (0.0, 0.4, 0.6, 0.8, 0.9, 1.0)
_WITHIN_A_PIXEL = (0.0, 0.06, 0.63, 0.76, 0.87, 0.99)
"""Share of all pixels whose way there and back agrees, and the share within 1 px of the truth that goes with it."""
_BLOCK = 8
_SAME = 5.5
"""Largest difference of a block of 8×8 pixels, in levels of 255, up to which a frame is the one before again, coded
twice. In repeats it was 4.7 at most; people who stand and talk came to 6.6 at least, and to a mean over the frame of
0.3, less than a repeat at a key frame (0.4)."""
_HELD = 0.75
"""Seconds for which a frame of a slow source is held at most; a longer rest is a rest."""


class Dis(Expert):
    """Forward flow of every pair of neighbouring frames, with occlusion from a forward–backward check.

    Preset MEDIUM with the search carried down to full resolution (finest scale 0): on FlyingChairs pairs of 512×384
    mean error and time were 7.7 and 1.3 px at 85 ms, against 8.2 and 1.6 px at 19 ms for the plain preset.

    The confidence predicts the share of pixels within 1 px of the truth, from the share that passes the check, those
    that leave the frame among them. The curve is fitted on made pairs of known motion (`benchmarks/light.py`). It says
    nothing where there is no texture (a black clip rests, with confidence .99).

    Where a slow source repeats a frame between others that move, nothing is known of the motion: such pairs are NaN,
    and the score `flow_repeated` is their share.
    """

    name = "dis"
    version = 3
    modality = "flow"
    license = "Apache-2.0"
    resources = Resources(cpus=1, memory_gib=0.5)
    seconds_per_frame = 0.15

    def annotate(self, clip: DecodedClip) -> Annotation[Flow]:
        """Flow of the clip. Raises OpenUniError for a clip of one frame or frames smaller than 16 pixels."""
        frames, height, width, _ = clip.frames.shape
        if frames < 2:
            raise OpenUniError(f"{clip.key}: flow needs two frames, the clip has {frames}")
        if min(height, width) < _SMALLEST:
            raise OpenUniError(f"{clip.key}: frames of {width}×{height} are too small for flow ({_SMALLEST} pixels)")
        # OpenCV splits the search into as many stripes as it has threads, so the count is part of the result.
        cv2.setNumThreads(self.resources.cpus)
        forward = np.empty((frames - 1, height, width, 2), np.float32)
        occluded = np.empty((frames - 1, height, width), np.bool_)
        repeats = repeated(clip.frames, clip.fps)
        consistent = 0
        here = clip.frames[0]
        for t, there in enumerate(clip.frames[1:]):
            if repeats[t]:
                forward[t], occluded[t] = np.nan, False
                continue
            forward[t], backward = self._both_ways(here, there)
            inside, agrees = round_trip(forward[t], backward)
            occluded[t] = ~(inside & agrees)
            consistent += int(np.count_nonzero(agrees))
            here = there
        looked = int(np.count_nonzero(~repeats)) * height * width
        scores = {"flow_repeated": float(repeats.mean())}
        return Annotation(Flow(forward, occluded), predicted_quality(consistent / looked), scores)

    def _both_ways(self, first: Image, second: Image) -> tuple[Motion, Motion]:
        """Flow from one frame `[H, W, 3]` to the other, and back."""
        here, there = gray(first), gray(second)
        return dis_flow(here, there), dis_flow(there, here)


def predicted_quality(agreeing: float) -> float:
    """The share of pixels within 1 px of the truth to expect where this share agrees forward and backward.

    Example:
        >>> predicted_quality(0.9)
        0.87
    """
    return float(np.interp(agreeing, _AGREEING, _WITHIN_A_PIXEL))


def repeated(frames: npt.NDArray[np.uint8], fps: float) -> Mask:
    """Which pairs of neighbouring frames `[T-1]` are one frame of a slow source, shown again.

    Both neighbours of such a rest move, within three quarters of a second. A rest at the clip's ends is one if it is no
    longer than the longest of those; in a clip that rests throughout, or for long, nothing is repeated.
    """
    still = [same_frame(a, b) for a, b in pairwise(frames)]
    moving = np.flatnonzero(~np.array(still, np.bool_))
    between = np.diff(moving) - 1
    longest = between[between < _HELD * fps].max(initial=0)
    held = np.zeros(len(still), np.bool_)
    for before, after in pairwise([-1, *moving.tolist(), len(still)]):
        held[before + 1 : after] = after - before - 1 <= longest
    return held


def same_frame(a: Image, b: Image) -> bool:
    """Whether two frames `[H, W, 3]` are one, coded twice."""
    return _most_changed(a, b) <= _SAME


def _most_changed(a: Image, b: Image) -> float:
    """Mean difference in the block that differs most between two frames, in the channel that differs most."""
    change = cv2.absdiff(a, b).max(axis=2).astype(np.float32)
    height, width = change.shape
    blocks = max(1, width // _BLOCK), max(1, height // _BLOCK)
    return float(cv2.resize(change, blocks, interpolation=cv2.INTER_AREA).max())


def dis_flow(source: Image, target: Image, start: Motion | None = None) -> Motion:
    """Flow `[H, W, 2]` in pixels from one gray frame `[H, W]` to another, searched from `start` where there is one.

    The search object is made anew: a used one keeps buffers and its answer depends on what it saw before.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    flow: Motion = search.calc(source, target, None if start is None else start.copy())
    return flow


def round_trip(forward: Motion, backward: Motion) -> tuple[Mask, Mask]:
    """Which pixels stay inside the frame, and which come back: `inside` and `agrees`, both `[H, W]`.

    A pixel x comes back if |f + b(x + f)|² < 0.01 (|f|² + |b(x + f)|²) + 0.5, with b sampled bilinearly (Sundaram,
    Brox and Keutzer, ECCV 2010, eq. 5). Outside the frame b is continued by its border.
    """
    height, width, _ = forward.shape
    x = forward[..., 0] + np.arange(width, dtype=np.float32)
    y = forward[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = np.square(forward + back).sum(axis=-1)
    size = np.square(forward).sum(axis=-1) + np.square(back).sum(axis=-1)
    return inside, gap < 0.01 * size + 0.5


def gray(frame: Image) -> Image:
    """An RGB frame `[H, W, 3]` in gray, `[H, W]`."""
    shades: Image = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return shades
