"""Average precision by COCO's protocol, streamed: each class by itself, matched image by image, merged across workers.

`hotcoco` does the matching and the accumulation (tests hold it to `pycocotools` at 1e-12). COCO averages over the
classes that have truth and matches each class by itself, so one evaluator a class gives the same mean without a
vocabulary that is known beforehand.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from openuni.errors import InvalidAnnotationError

Annotation = dict[str, Any]
"""A COCO annotation less its ids: `segmentation` or `keypoints`, `area`, for detections `score`."""


class Precision(NamedTuple):
    """AP over IoU (or OKS) .5:.05:.95, at .5 and at .75; NaN where there is no truth."""

    ap: float
    ap50: float
    ap75: float


NO_PRECISION = Precision(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of the sample `key` (for tubes: all of it, as frame 0), one class: what there is, what was found."""

    key: str
    frame: int
    height: int
    width: int
    label: str
    truths: Sequence[Annotation]
    found: Sequence[Annotation]


class AveragePrecision:
    """Mean over classes of COCO's AP, all areas, at most 100 detections (20 poses) of a class in an image.

    `sigmas` are the key points' falloffs for OKS; without them masks are compared by IoU. Keeps a few numbers for
    each instance, no masks.
    """

    def __init__(self, sigmas: Sequence[float] | None = None) -> None:
        self.sigmas = None if sigmas is None else tuple(sigmas)
        self._matched: dict[str, list[Any]] = {}

    def add(self, pictures: Sequence[Picture]) -> None:
        """Match what was found with what is there. A frame must be added once."""
        by_label: dict[str, list[Picture]] = {}
        for picture in pictures:
            if picture.truths or picture.found:
                by_label.setdefault(picture.label, []).append(picture)
        for label, group in by_label.items():
            images: list[Annotation] = []
            truths: list[Annotation] = []
            found: list[Annotation] = []
            for picture in group:
                image = image_id(picture.key, picture.frame)
                common = {"image_id": image, "category_id": 1}
                images.append({"id": image, "height": picture.height, "width": picture.width})
                for truth in picture.truths:
                    truths.append({**truth, **common, "id": len(truths) + 1, "iscrowd": 0})
                found += [{**detection, **common} for detection in picture.found]
            evaluator = self._evaluator()
            evaluator.update(images, truths, found)
            self._matched.setdefault(label, []).append(evaluator)

    def state(self) -> dict[str, list[str]]:
        """The matches of each class, in `hotcoco`'s own bytes (base64)."""
        return {
            label: [base64.b64encode(evaluator.to_bytes()).decode() for evaluator in evaluators]
            for label, evaluators in sorted(self._matched.items())
        }

    def absorb(self, state: Mapping[str, Sequence[str]]) -> None:
        """Take in the `state()` of another one."""
        from hotcoco import StreamingEval

        for label, evaluators in state.items():
            restored = [StreamingEval.from_bytes(base64.b64decode(data)) for data in evaluators]
            self._matched.setdefault(label, []).extend(restored)

    def compute(self) -> Precision:
        """The mean over the classes that have truth; NaN where none has."""
        by_class = [p for p in self.by_class().values() if not math.isnan(p.ap)]
        if not by_class:
            return NO_PRECISION
        return Precision(*(float(np.mean(column)) for column in zip(*by_class, strict=True)))

    def by_class(self) -> dict[str, Precision]:
        """AP of each class seen; NaN for a class that was only predicted."""
        return {label: _accumulate(evaluators) for label, evaluators in sorted(self._matched.items())}

    def _evaluator(self) -> Any:
        import hotcoco

        kind: Literal["segm", "keypoints"] = "segm" if self.sigmas is None else "keypoints"
        params = hotcoco.Params(kind)
        if self.sigmas is not None:
            params.kpt_oks_sigmas = list(self.sigmas)
        # Only `all` is reported: areas of a rendered 256-pixel frame are not COCO's small, medium and large.
        params.area_rng, params.area_rng_lbl = [[0, 1e10]], ["all"]
        params.max_dets = params.max_dets[-1:]
        return hotcoco.StreamingEval([{"id": 1, "name": "one"}], iou_type=kind, params=params)


def _accumulate(evaluators: list[Any]) -> Precision:
    evaluation = type(evaluators[0]).merge(evaluators).finalize()
    evaluation.accumulate()
    # [thresholds, recalls, 1 class, 1 area, 1 limit]; −1 everywhere where the class has no truth
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[:, :, 0, 0, 0]
    if (precision < 0).all():
        return NO_PRECISION
    return Precision(float(precision.mean()), float(precision[0].mean()), float(precision[5].mean()))


def image_id(key: str, frame: int) -> int:
    """The id of a frame, below 2⁶²; in the order of ids ties of scores are broken, so it depends on nothing else."""
    if not 0 <= frame < 1 << 14:
        raise InvalidAnnotationError(f"{key}: frame {frame}; scores are defined for clips of at most 16384 frames")
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") << 14) + frame
