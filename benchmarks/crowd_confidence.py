"""How well the confidence of light masks, poses and DensePose predicts their quality in crowds, and its weights.

    python benchmarks/crowds.py --out data/crowds --scenes 5
    python benchmarks/crowd_confidence.py --crowds data/crowds

A person-frame is one with a mask. Masks: the overlap (IoU) with the true person who overlaps most, from the signals of
`mask_quality` by a logistic curve that is fitted on all families but one and judged on that one; and from the score of
the instance, one a clip, as the index has it. Pose: OKS with the true person it fits best, from the signals of
`pose_quality` by such a curve too, fitted on those of whom it is firmly believed that they are people, times that
belief. DensePose: the share of painted pixels whose part is right, by a confidence without fitted weights. Printed are
rank correlation (Spearman, with 95 % by resampling scenes), calibration error (mean gap over bins of equal count), and
the curves fitted on all families. `mask_quality` holds that of masks; those in `pose_quality` were fitted on rendered
walkers too.
`--out` writes all rows and their pictures (`calibration.py`). The digest of the scenes tells whether two runs saw the
same people.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from calibration import Judged, Panel, report, save
from light_people import annotated, iou, oks_of
from scipy.optimize import minimize

from openuni.experts import base, mask_quality, pose_quality
from openuni.experts.people import TrackedPeople

Floats = npt.NDArray[np.float64]
EXPERTS = ("people", "mediapipe_pose", "mediapipe_segmentation", "body_fit")
FPS = 8.0
FEWEST = 150
"""Pixels of a true person from which a mask is asked for."""
_FIRM = 0.8
"""Belief from which the quality of a pose is the pose's, and not whether there is a person."""
_SHRUNK = 3e-3
"""Weight of the squared weights in a fit: with some hundred person-frames, large weights are chance."""


@dataclass(slots=True)
class Tally:
    """Person-frames by modality; of each mask also the signals that tell of its quality."""

    masks: list[Judged] = field(default_factory=list)
    signals: list[Floats] = field(default_factory=list)
    joints: list[Judged] = field(default_factory=list)
    """The confidence is the belief that it is a whole person."""
    pose_signals: list[Floats] = field(default_factory=list)
    parts: list[Judged] = field(default_factory=list)
    outlined: list[bool] = field(default_factory=list)


def fitted(signals: Floats, quality: Floats) -> Floats:
    """Weights `[K + 1]` of the logistic curve, the last its offset: least cross entropy, no weight below zero."""
    design = np.hstack([signals, np.ones((len(signals), 1))])

    def loss(weights: Floats) -> tuple[float, Floats]:
        sums = design @ weights
        shrunk = np.append(weights[:-1], 0)
        value = np.mean(np.logaddexp(0, sums) - quality * sums) + _SHRUNK * (shrunk @ shrunk) / 2
        return float(value), design.T @ (mask_quality.logistic(sums) - quality) / len(quality) + _SHRUNK * shrunk

    bounds = [(0, None)] * signals.shape[1] + [(None, None)]
    weights: Floats = minimize(loss, np.zeros(design.shape[1]), jac=True, bounds=bounds).x
    return weights


def left_out(rows: list[Judged], signals: Floats, belief: Floats | None = None) -> list[Judged]:
    """Each family with the confidence by the curve of all others, times the belief that it is a person."""
    family, quality = np.array([row.family for row in rows]), np.array([row.quality for row in rows])
    belief = np.ones(len(rows)) if belief is None else belief
    predicted = np.empty(len(rows))
    for name in np.unique(family):
        here = family == name
        weights = fitted(signals[~here & (belief > _FIRM)], quality[~here & (belief > _FIRM)])
        predicted[here] = mask_quality.logistic(signals[here] @ weights[:-1] + weights[-1]) * belief[here]
    return [replace(row, confidence=float(value)) for row, value in zip(rows, predicted, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crowds", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for crowds.csv and crowds.png")
    arguments = parser.parse_args()
    experts = {name: base.get(name)() for name in EXPERTS}
    files = sorted(arguments.crowds.glob("*.npz"))
    print(f"{len(files)} scenes, digest {digest(files)}")
    for expert in experts.values():
        expert.setup()
    tally = Tally()
    for file in files:
        look_at(file, experts, tally)
    for expert in experts.values():
        expert.teardown()
    print(f"true person-frames with a mask of IoU above .5: {np.mean(tally.outlined):.3f} of {len(tally.outlined)}")
    signals = np.array(tally.signals)
    weights = fitted(signals, np.array([row.quality for row in tally.masks]))
    print(f"weights of the masks' signals, fitted on all {weights.round(2).tolist()}")
    pose_signals, belief = np.array(tally.pose_signals), np.array([row.confidence for row in tally.joints])
    weights = fitted(pose_signals[belief > _FIRM], np.array([row.quality for row in tally.joints])[belief > _FIRM])
    print(f"weights of the poses' signals, fitted on all {weights.round(2).tolist()}")
    iou_of = "IoU with the true person"
    panels = [
        Panel("masks: crowds, from signals, families left out", iou_of, left_out(tally.masks, signals)),
        Panel("masks: crowds, score of the instance", iou_of, tally.masks),
        Panel(
            "pose: crowds, from signals, families left out",
            "object keypoint similarity (OKS)",
            left_out(tally.joints, pose_signals, belief),
        ),
        Panel("DensePose: crowds", "share of painted pixels with the right part", tally.parts),
    ]
    for panel in panels:
        report(panel.title, panel.rows)
    if arguments.out is not None:
        save(panels, arguments.out, "crowds")


def digest(files: list[Path]) -> str:
    """Of what the scenes show, without the numbers that a file holds besides, such as when it was written."""
    found = hashlib.sha256()
    for file in files:
        with np.load(file) as stored:
            for name in ("rgb", "person", "parts"):
                found.update(stored[name].tobytes())
    return found.hexdigest()[:12]


def look_at(file: Path, experts: dict[str, base.Expert], tally: Tally) -> None:
    """Add one scene."""
    with np.load(file) as stored:
        rgb, person, true_parts = stored["rgb"], stored["person"], stored["parts"]
        joints, boxes = stored["joints"], stored["boxes"]
    scene, family = file.stem, file.stem.rpartition("-")[0]
    found = annotated(experts, scene, rgb, FPS)
    people: TrackedPeople = found["people"].value
    ids = found["mediapipe_segmentation"].value.ids
    signals = mask_quality.signals(people, ids, rgb)
    score = {row.id: row.score for row in found["mediapipe_segmentation"].value.instances}
    for t, p in np.argwhere((signals >= 0).all(axis=-1)).tolist():
        if p + 1 not in score:
            continue
        overlap = max(iou(ids[t] == p + 1, person[t] == k) for k in range(1, person.max() + 1))
        tally.masks.append(Judged(family, scene, score[p + 1], overlap))
        tally.signals.append(signals[t, p])
    for t, k in np.argwhere(
        np.apply_along_axis(np.bincount, 1, person.reshape(len(person), -1), minlength=256) >= FEWEST
    ):
        if k > 0:
            best = max(iou(ids[t] == p + 1, person[t] == k) for p in range(max(1, people.count)))
            tally.outlined.append(best > 0.5)
    pose_signals, whole = pose_quality.signals(people), pose_quality.whole(people)
    for t, p, oks in oks_of(found, joints, boxes):
        tally.joints.append(Judged(family, scene, float(people.belief[p] * whole[t, p]), oks))
        tally.pose_signals.append(pose_signals[t, p])
    if "body_fit" not in found or (confidence := found["body_fit"].value.confidence) is None:
        return
    values = found["body_fit"].value.values
    for t, p in np.argwhere(~np.isnan(confidence)).tolist():
        drawn = values[t, ..., 3] == p + 1
        if drawn.any():
            right = float((values[t, ..., 0] == true_parts[t])[drawn].mean())
            tally.parts.append(Judged(family, scene, float(confidence[t, p]), right))


if __name__ == "__main__":
    main()
