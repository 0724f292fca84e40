"""How well the confidence of light masks and DensePose predicts their quality in crowds, and the weights it has.

    python benchmarks/crowds.py --out data/crowds --scenes 5
    python benchmarks/crowd_confidence.py --crowds data/crowds

A person-frame is one with a mask. Masks: the overlap (IoU) with the true person who overlaps most, from the signals of
`mask_quality` by a logistic curve that is fitted on all families but one and judged on that one; and from the score of
the instance, one a clip, as the index has it. DensePose: the share of painted pixels whose part is right, from its
confidence, which has no fitted weights. Printed are rank correlation (Spearman, with 95 % by resampling scenes),
calibration error (mean gap over ten bins of equal count), and the mask's curve fitted on all families, which
`mask_quality` holds. The digest of the scenes tells whether two runs saw the same people.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from light_people import annotated, iou
from scipy.optimize import minimize
from scipy.stats import spearmanr

from openuni.experts import base, mask_quality
from openuni.experts.people import TrackedPeople

Floats = npt.NDArray[np.float64]
EXPERTS = ("people", "mediapipe_segmentation", "body_fit")
FPS = 8.0
FEWEST = 150
"""Pixels of a true person from which a mask is asked for."""
_SHRUNK = 3e-3
"""Weight of the squared weights in a fit: with some hundred person-frames, large weights are chance."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A person-frame: its scene, what is known of it without the truth, its quality, and the confidence it has."""

    scene: str
    signals: Floats
    quality: float
    confidence: float

    @property
    def family(self) -> str:
        return self.scene.rpartition("-")[0]


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


def left_out(rows: list[Seen]) -> Floats:
    """Predictions of each family by the curve of all others."""
    family = np.array([row.family for row in rows])
    signals, quality = np.array([row.signals for row in rows]), np.array([row.quality for row in rows])
    predicted = np.empty(len(rows))
    for name in np.unique(family):
        here = family == name
        weights = fitted(signals[~here], quality[~here])
        predicted[here] = mask_quality.logistic(signals[here] @ weights[:-1] + weights[-1])
    return predicted


def calibration_error(predicted: Floats, true: Floats, bins: int = 10) -> float:
    parts = np.array_split(np.argsort(predicted), bins)
    return float(sum(len(part) * abs(predicted[part].mean() - true[part].mean()) for part in parts) / len(predicted))


def interval(predicted: Floats, rows: list[Seen]) -> tuple[float, float]:
    """95 % of Spearman's correlation, by resampling whole scenes: the frames of one are alike."""
    quality, scene = np.array([row.quality for row in rows]), np.array([row.scene for row in rows])
    places = [np.flatnonzero(scene == name) for name in np.unique(scene)]
    rng, found = np.random.default_rng(0), []
    for _ in range(1000):
        chosen = np.concatenate([places[i] for i in rng.integers(0, len(places), len(places))])
        found.append(spearmanr(predicted[chosen], quality[chosen])[0])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def report(what: str, rows: list[Seen], predicted: Floats) -> None:
    quality = np.array([row.quality for row in rows])
    low, high = interval(predicted, rows)
    scenes = len({row.scene for row in rows})
    print(f"{what}: {len(rows)} person-frames of {scenes} scenes, quality {quality.mean():.3f}")
    print(f"  Spearman {spearmanr(predicted, quality)[0]:.3f} (95 %: {low:.2f} to {high:.2f})", end="")
    print(f", calibration error {calibration_error(predicted, quality):.3f}")
    for name in sorted({row.family for row in rows}):
        here = np.array([row.family == name for row in rows])
        print(f"  {name:<8} {here.sum():4d}, predicted − true {(predicted - quality)[here].mean():+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crowds", type=Path, required=True)
    experts = {name: base.get(name)() for name in EXPERTS}
    files = sorted(parser.parse_args().crowds.glob("*.npz"))
    print(f"{len(files)} scenes, digest {digest(files)}")
    for expert in experts.values():
        expert.setup()
    masks: list[Seen] = []
    parts: list[Seen] = []
    outlined: list[bool] = []
    for file in files:
        look_at(file, experts, masks, parts, outlined)
    for expert in experts.values():
        expert.teardown()
    print(f"true person-frames with a mask of IoU above .5: {np.mean(outlined):.3f} of {len(outlined)}")
    report("masks, IoU, each family left out of the fit", masks, left_out(masks))
    report("masks, IoU, by the score of the instance", masks, np.array([row.confidence for row in masks]))
    weights = fitted(np.array([row.signals for row in masks]), np.array([row.quality for row in masks]))
    print(f"  weights fitted on all {weights.round(2).tolist()}")
    report("DensePose, parts right", parts, np.array([row.confidence for row in parts]))


def digest(files: list[Path]) -> str:
    """Of what the scenes show, without the numbers that a file holds besides, such as when it was written."""
    found = hashlib.sha256()
    for file in files:
        with np.load(file) as stored:
            for name in ("rgb", "person", "parts"):
                found.update(stored[name].tobytes())
    return found.hexdigest()[:12]


def look_at(
    file: Path, experts: dict[str, base.Expert], masks: list[Seen], parts: list[Seen], outlined: list[bool]
) -> None:
    """Add one scene."""
    with np.load(file) as stored:
        rgb, person, true_parts = stored["rgb"], stored["person"], stored["parts"]
    found = annotated(experts, file.stem, rgb, FPS)
    people: TrackedPeople = found["people"].value
    ids = found["mediapipe_segmentation"].value.ids
    signals = mask_quality.signals(people, ids, rgb)
    score = {row.id: row.score for row in found["mediapipe_segmentation"].value.instances}
    for t, p in np.argwhere((signals >= 0).all(axis=-1)).tolist():
        if p + 1 not in score:
            continue
        overlap = max(iou(ids[t] == p + 1, person[t] == k) for k in range(1, person.max() + 1))
        masks.append(Seen(file.stem, signals[t, p], overlap, score[p + 1]))
    for t, k in np.argwhere(
        np.apply_along_axis(np.bincount, 1, person.reshape(len(person), -1), minlength=256) >= FEWEST
    ):
        if k > 0:
            outlined.append(max(iou(ids[t] == p + 1, person[t] == k) for p in range(max(1, people.count))) > 0.5)
    if "body_fit" not in found or (confidence := found["body_fit"].value.confidence) is None:
        return
    values = found["body_fit"].value.values
    for t, p in np.argwhere(~np.isnan(confidence)).tolist():
        drawn = values[t, ..., 3] == p + 1
        if drawn.any():
            right = float((values[t, ..., 0] == true_parts[t])[drawn].mean())
            parts.append(Seen(file.stem, np.zeros(0), right, float(confidence[t, p])))


if __name__ == "__main__":
    main()
