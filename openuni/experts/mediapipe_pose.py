"""Light skeletons: BlazePose's landmarks (Bazarevsky et al., arXiv:2006.10204) as COCO's 17 joints."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.people import TrackedPeople
from openuni.experts.pose_quality import COCO, predicted_oks
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation

_ABSENT = np.array([np.nan, np.nan, 0], np.float32)
_HIDDEN = 0.25
"""Most that a joint is believed which lies behind somebody else; joints are drawn from .3."""
_HEAD = slice(0, 5)
"""Nose, eyes and ears among COCO's joints."""
_ONE_HEAD = 0.08
"""Distance of two people's heads, over the smaller one's size, below which it is one head that both were given."""
_SURE = 0.5
"""Support, and share of a clip's frames, from which somebody is a person for its subset."""
_DOUBTED = 0.2
"""Support and share of the frames from which somebody else makes it doubtful how many there are."""
_LARGE = 64
"""Pixels of height from which the pose model sees people: whom it never sees there is a thing, most likely."""


class MediapipePose(Expert):
    """COCO-17 joints of each tracked person, in pixels and in metres, with scores.

    A joint's score is the landmark model's visibility. A joint outside the frame is absent (score 0, NaN), and one on
    the pixels of another person is behind them: its score is at most .25. So is that of a head which two people have
    at one place, but for the one in whose mask it lies. A model that invents the hidden arm of a person alone in the
    picture is not seen through: its visibility is all there is to know. The clip's confidence is the mean similarity
    with the true pose (OKS) to expect of those drawn, see `pose_quality`.
    """

    name = "mediapipe_pose"
    version = 5
    modality = "skeleton"
    license = "Apache-2.0"
    requires = ("people",)
    resources = Resources(cpus=1, memory_gib=0.5)
    seconds_per_frame = 0.002

    def annotate(self, clip: DecodedClip) -> Annotation[Skeleton]:
        """Skeletons of the clip; of nobody, with confidence 0, where no pose was found.

        The scores say who is there, see `presence`; the index routes clips by `people`.
        """
        people = people_in(clip)
        _, height, width, _ = clip.frames.shape
        posed = np.flatnonzero(~np.isnan(people.landmarks[..., 0, 0]).all(axis=0))
        keypoints = people.landmarks[:, posed][:, :, COCO]
        world = people.world[:, posed][:, :, COCO]
        x, y, score = np.moveaxis(keypoints, -1, 0).copy()
        hidden = _behind_others(people.masks, posed, x, y)
        hidden[..., _HEAD] |= _heads_of_others(people.masks, people.boxes[:, posed], posed, x, y)[..., None]
        score = np.where(hidden, np.minimum(score, _HIDDEN), np.nan_to_num(score))
        score[~((x >= 0) & (x < width) & (y >= 0) & (y < height))] = 0  # also where NaN
        keypoints = np.where((score > 0)[..., None], np.stack([x, y, score], -1), _ABSENT)
        skeleton = Skeleton(
            keypoints.astype(np.float32),
            people.boxes[:, posed],
            (posed + 1).astype(np.int32),
            height,
            width,
            world=np.where((score > 0)[..., None], world, np.float32(np.nan)),
        )
        expected = predicted_oks(people)[:, posed][(score > 0).any(axis=2)]
        return Annotation(skeleton, float(expected.mean()) if len(expected) else 0.0, presence(people))


def presence(people: TrackedPeople) -> dict[str, float]:
    """How many people a clip is of, as scores for the index.

    `people_sure` are those with a pose whom the detector firmly supports in at least half of the frames;
    `people_doubtful` counts others that may be people: weaker, for a fifth of the frames or more, or too small for a
    pose. `people` is their sum where someone is sure, with half a person more where somebody is in doubt, so that a
    whole number is only one that can be relied upon: a crowd is not a single person because one of them stands out.
    Nobody sure is 0. `people_in_sight` is the mean number tracked in a frame.
    """
    count = max(1, len(people.scores))
    seen = (~np.isnan(people.scores)).sum(axis=0) / count
    posed = ~np.isnan(people.landmarks[..., 0, 0])
    height = np.nan_to_num(people.boxes[..., 3] - people.boxes[..., 1]).max(axis=0, initial=0)
    sure = (people.support >= _SURE) & posed.any(axis=0) & (seen >= _SURE)
    likely = posed.any(axis=0) | (height < _LARGE) | (seen >= _SURE)
    doubtful = ~sure & likely & (people.support >= _DOUBTED) & (seen >= _DOUBTED)
    number = float(sure.sum() + doubtful.sum()) + 0.5 * bool(doubtful.any()) if sure.any() else 0.0
    return {
        "people": number,
        "people_sure": float(sure.sum()),
        "people_doubtful": float(doubtful.sum()),
        "people_in_sight": float(seen.sum()),
    }


def of_tracked(
    keypoints: npt.NDArray[np.float32], people: TrackedPeople, height: int, width: int, layout: str = "coco17"
) -> Annotation[Skeleton]:
    """Skeletons of tracked people from joints `[T, P, K, 3]`, with the mean score of the body's times belief."""
    tracks = np.arange(1, people.count + 1, dtype=np.int32)
    skeleton = Skeleton(keypoints, people.boxes, tracks, height, width, layout)
    score = skeleton.body.keypoints[..., 2]
    there = (score > 0).any(axis=2)
    confidence = float((score.mean(axis=2) * people.belief)[there].mean()) if there.any() else 0.0
    return Annotation(skeleton, confidence, {"people": float((people.support >= 0.5).sum())})


def people_in(clip: DecodedClip, finder: str = "people") -> TrackedPeople:
    """What the expert `finder` found, `people` or `rf_detr`. Raises OpenUniError where it did not run or failed."""
    if finder not in clip.annotations:
        raise OpenUniError(f"{clip.key}: the expert {finder!r} found nothing to build on: it failed on this clip")
    people: TrackedPeople = clip.annotations[finder].value
    return people


def _behind_others(
    masks: npt.NDArray[np.uint8], posed: npt.NDArray[np.intp], x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Which joints `[T, P, K]` lie on another person's mask, farther than a few pixels from their own."""
    hidden = np.zeros(x.shape, np.bool_)
    _, height, width = masks.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column = np.where(inside, x, 0).astype(int)
    row = np.where(inside, y, 0).astype(int)
    kernel = np.ones((max(3, height // 60),) * 2, np.uint8)
    for t in np.flatnonzero(masks.any(axis=(1, 2))):
        for i, p in enumerate(posed):
            if not inside[t, i].any():
                continue
            near = cv2.dilate((masks[t] == p + 1).astype(np.uint8), kernel)
            at = row[t, i], column[t, i]
            hidden[t, i] = inside[t, i] & (masks[t][at] > 0) & (near[at] == 0)
    return hidden


def _heads_of_others(
    masks: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    posed: npt.NDArray[np.intp],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Whose head `[T, P]` is another's: both are at one place, and more of its joints lie on the other's mask."""
    wrong = np.zeros(x.shape[:2], np.bool_)
    _, height, width = masks.shape
    for t, a, b in ((t, a, b) for t in range(len(masks)) for a, b in combinations(range(len(posed)), 2)):
        heads = np.stack([x[t, [a, b], _HEAD], y[t, [a, b], _HEAD]], -1)  # [2, 5, 2]
        sides = boxes[t, [a, b], 2:] - boxes[t, [a, b], :2]
        away = np.linalg.norm(heads[0].mean(0) - heads[1].mean(0))
        if not away < _ONE_HEAD * np.sqrt(sides.prod(1).min()):  # also where one is not there
            continue
        column, row = np.clip(heads.reshape(-1, 2), 0, (width - 1, height - 1)).astype(int).T
        whose = masks[t, row, column]
        first, second = int((whose == posed[a] + 1).sum()), int((whose == posed[b] + 1).sum())
        if first != second:
            wrong[t, b if first > second else a] = True
    return wrong
