"""The people's part of `light.py`: routing, identities, masks, joints and parts of rendered people, false things."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import Judged, Panel, columns, report

import openuni
from openuni.errors import OpenUniError
from openuni.experts import base
from openuni.experts.people import TrackedPeople
from openuni.experts.pose_quality import predicted_oks
from openuni.experts.tracking import overlap
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Record, Sample
from openuni.shards import routing

EXPERTS = ("people", "mediapipe_pose", "mediapipe_segmentation", "body_fit")
SIGMAS = 2 * np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1, *[2] * 8])
"""COCO's tolerance of each joint."""
FEWEST = 150
"""Pixels of a true person from which a mask is asked for."""

Found = dict[str, Any]


@dataclass
class Tally:
    """What was measured: confidence and quality of each person-frame, by modality, and the counts."""

    masks: list[Judged] = field(default_factory=list)
    joints: list[Judged] = field(default_factory=list)
    parts: list[Judged] = field(default_factory=list)
    outlined: list[bool] = field(default_factory=list)
    clips: int = 0
    routed: int = 0


def measure(scenes: Path) -> list[Panel]:
    """How good the light path is on the clips of a dataset that have people, printed and as rows."""
    import motmetrics

    experts = {name: base.get(name)() for name in EXPERTS}
    for expert in experts.values():
        expert.setup()
    tally, tracks = Tally(), []
    for sample in openuni.open(scenes):
        if not sample.statuses["skeleton"].present:
            continue
        found = annotated(experts, sample.key, sample.rgb.frames, sample.record.fps)
        tracks.append(tracked(motmetrics, sample, found["people"].value))
        compare(tally, sample, found)
    false, seconds = false_things(experts)
    for expert in experts.values():
        expert.teardown()
    metrics = motmetrics.metrics.create()
    whole = metrics.compute_many(tracks, metrics=["idf1", "num_switches", "num_fragmentations"], generate_overall=True)
    idf1, switches, fragments = whole.loc["OVERALL"]
    print(f"people, {tally.clips} clips: {tally.routed} routed right")
    print(f"  IDF1               {idf1:.3f} ({switches:.0f} switches, {fragments:.0f} fragments)")
    print(f"  true person-frames with a mask of IoU above .5: {np.mean(tally.outlined):.3f} of {len(tally.outlined)}")
    print(f"  false things a minute on test cards, noise and gradients: {60 * false / seconds:.1f}")
    panels = [
        Panel("masks: rendered walkers, score of the instance", "IoU with the true person", tally.masks),
        Panel("pose: rendered walkers", "object keypoint similarity (OKS)", tally.joints),
        Panel("DensePose: rendered walkers", "share of painted pixels with the right part", tally.parts),
    ]
    for panel in panels:
        report(f"{panel.title}, confidence {columns(panel.rows)[0].mean():.3f}", panel.rows)
    return panels


def annotated(experts: dict[str, base.Expert], key: str, frames: npt.NDArray[np.uint8], fps: float) -> Found:
    """What each expert says of a clip; one that has nothing trustworthy to say is left out."""
    found: Found = {}
    for name, expert in experts.items():
        try:
            found[name] = expert.annotate(base.DecodedClip(key, frames, fps, found))
        except OpenUniError as error:
            print(f"  {key}, {name}: {error}")
    return found


def tracked(motmetrics: Any, sample: Sample, people: TrackedPeople) -> Any:
    """Who is whom, by boxes that overlap by half."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for true, predicted in zip(sample.skeleton.boxes, people.boxes, strict=True):
        here, there = (np.flatnonzero(~np.isnan(boxes[:, 0])) for boxes in (true, predicted))
        apart = 1 - np.array([[overlap(a, b) for b in predicted[there]] for a in true[here]], np.float64)
        apart = apart.reshape(len(here), len(there))
        accumulator.update(here, there, np.where(apart > 0.5, np.nan, apart))
    return accumulator


def compare(tally: Tally, sample: Sample, found: Found) -> None:
    """Add one clip to the tally."""
    family = sample.key.split("-")[1]
    scores = found["mediapipe_pose"].scores
    record = Record(sample.key, 1, 1, 1, 1.0, scores=scores)
    tally.clips += 1
    tally.routed += routing.subset(record) == sample.record.subset
    true, guess = sample.segmentation, found["mediapipe_segmentation"].value
    persons = [row.id for row in true.instances if row.class_name == "person"]
    for real, ids in zip(true.ids, guess.ids, strict=True):
        overlaps = {row: [iou(ids == row.id, real == p) for p in persons] for row in guess.instances}
        for row, each in overlaps.items():
            if row.class_name == "person" and (ids == row.id).any():
                tally.masks.append(Judged(family, sample.key, row.score, max(each)))
        for k, p in enumerate(persons):
            if (real == p).sum() >= FEWEST:
                tally.outlined.append(max((each[k] for each in overlaps.values()), default=0.0) > 0.5)
    expected = predicted_oks(found["people"].value)
    for t, p, oks in oks_of(found, sample.skeleton.keypoints, sample.skeleton.boxes):
        tally.joints.append(Judged(family, sample.key, float(expected[t, p]), oks))
    if "body_fit" in found:
        dense = found["body_fit"].value
        for t, p in np.argwhere(~np.isnan(dense.confidence)).tolist() if dense.confidence is not None else ():
            drawn = dense.values[t, ..., 3] == p + 1
            if drawn.any():
                right = (dense.values[t, ..., 0] == sample.densepose.values[t, ..., 0])[drawn].mean()
                tally.parts.append(Judged(family, sample.key, float(dense.confidence[t, p]), float(right)))


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def oks_of(
    found: Found, joints: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]
) -> list[tuple[int, int, float]]:
    """Frame and person of each pose, and its OKS with whom it fits best of `[T, P, 17, 3]` in `[T, P, 4]`."""
    skeleton = found["mediapipe_pose"].value
    assert isinstance(skeleton, Skeleton)
    return [
        (t, int(track) - 1, best_oks(joints[t], boxes[t], pose))
        for t, poses in enumerate(skeleton.keypoints)
        for pose, track in zip(poses, skeleton.track_ids, strict=True)
        if (pose[:, 2] > 0).any()
    ]


def best_oks(joints: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32], pose: npt.NDArray[np.float32]) -> float:
    """Object keypoint similarity of a pose with the true person it fits best."""
    best = 0.0
    for true, box in zip(joints, boxes, strict=True):
        seen = true[:, 2] > 0
        if seen.any():
            area = 0.53 * float(
                np.prod(box[2:] - box[:2])
            )  # COCO's areas are of masks; this is their mean share of a box
            squared = np.square(pose[:, :2] - true[:, :2]).sum(axis=1)
            similar = np.exp(-np.nan_to_num(squared, nan=np.inf) / (2 * area * SIGMAS**2))
            best = max(best, float(similar[seen].mean()))
    return best


def false_things(experts: dict[str, base.Expert]) -> tuple[int, float]:
    """Instances in clips that show nothing, and how many seconds those are long."""
    count, fps, height, width = 8, 8.0, 180, 320
    columns = np.arange(width)
    bars = np.tile(columns * 8 // width * 30 + 20, (height, 1))
    ramp = np.tile(columns * 255 // width, (height, 1))
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    discs = np.where((columns - 160) ** 2 + (np.arange(height)[:, None] - 90) ** 2 < 60**2, 200, 60)
    false = 0
    for picture in (bars, ramp, noise, discs):
        frames = np.tile(picture.astype(np.uint8)[None, ..., None], (count, 1, 1, 3))
        light = {name: experts[name] for name in EXPERTS[:3]}
        false += len(annotated(light, "nothing", frames, fps)["mediapipe_segmentation"].value.instances)
    return false, 4 * count / fps
