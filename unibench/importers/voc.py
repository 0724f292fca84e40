"""Pascal VOC (Everingham et al. 2010): one picture a clip, objects as palette PNG with an undecided border."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.formats.bounded import read_rgb
from unibench.formats.palette import read_indices
from unibench.importers.base import Imported, LeftOut, unread

_VOID = 255
"""Index of the border of objects, and of objects too hard to tell: neither right nor wrong."""
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The class of each index in `SegmentationClass`."""


def read_voc(src: Path) -> Iterator[Imported | LeftOut]:
    """Pictures of `VOC2012/` (or of each `VOC*/` of `VOCdevkit/`): `JPEGImages/<name>.jpg` with
    `SegmentationObject/<name>.png` and `SegmentationClass/<name>.png`.

    An object's id is its index; its class is that of its pixels. Raises CorruptDataError where the two masks disagree.
    """
    roots = (
        [src]
        if (src / "SegmentationObject").is_dir()
        else sorted(path.parent for path in src.glob("VOC*/SegmentationObject"))
    )
    if not roots:
        raise CorruptDataError(f"{src} holds no SegmentationObject; point to VOC2012 or VOCdevkit")
    for root in roots:
        masks = {path.stem: path for path in sorted((root / "SegmentationObject").glob("*.png"))}
        yield from _unmasked(root, set(masks))
        for name, mask in masks.items():
            picture = root / "JPEGImages" / f"{name}.jpg"
            if not picture.is_file():
                yield LeftOut(str(mask), "has no picture")
                continue
            truth = _segmentation(mask, root / "SegmentationClass" / mask.name)
            yield Imported(f"voc-{name}", read_rgb(picture)[None], 1.0, segmentation=truth)
        folders = ("JPEGImages", "SegmentationObject", "SegmentationClass", "Annotations")
        yield from unread(root, (path for folder in folders for path in (root / folder).rglob("*")))


def _unmasked(root: Path, masked: set[str]) -> Iterator[LeftOut]:
    """VOC has masks for a fifth of its pictures, and boxes for all."""
    pictures = sorted(path.name for path in (root / "JPEGImages").glob("*") if path.stem not in masked)
    if pictures:
        yield LeftOut(
            f"{len(pictures)} pictures of {root / 'JPEGImages'} ({pictures[0]}, …)", "have no mask of objects"
        )
    classes = sorted(path.name for path in (root / "SegmentationClass").glob("*.png") if path.stem not in masked)
    if classes:
        yield LeftOut(f"{len(classes)} masks of classes ({classes[0]}, …)", "have no mask of objects")
    if (root / "Annotations").is_dir():
        yield LeftOut(str(root / "Annotations"), "is not read: the masks are")


def _segmentation(objects: Path, classes: Path) -> Segmentation:
    ids, labels = read_indices(objects), read_indices(classes)
    if ids.shape != labels.shape:
        raise CorruptDataError(f"{objects} is {ids.shape}, {classes} {labels.shape}; sizes must agree")
    void = (ids == _VOID) | (labels == _VOID)
    kept = np.where(void, 0, ids).astype(np.int32)[None]
    numbers = [number for number in np.unique(kept).tolist() if number]
    rows = tuple(Instance(number, _class(number, ids, labels, void, objects)) for number in numbers)
    return Segmentation(kept, rows, void[None] if void.any() else None)


def _class(
    number: int, ids: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], void: npt.NDArray[np.bool_], path: Path
) -> str:
    of = np.unique(labels[(ids == number) & ~void]).tolist()
    if len(of) != 1 or not 0 < of[0] < len(CLASSES):
        raise CorruptDataError(f"{path}: object {number} has the classes {of[:5]} in SegmentationClass; one is right")
    return CLASSES[of[0]]
