"""DAVIS (Perazzi et al. 2016; Pont-Tuset et al. 2017): pictures as JPEG, instance ids as palette PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.formats.bounded import read_rgbs, same_size, sequence
from unibench.formats.palette import read_indices
from unibench.importers.base import Imported, LeftOut, unread

_VOID = 255
"""Index of pixels that the annotators left undecided (2017), or of the one object (2016: 0 and 255)."""


def read_davis(src: Path) -> Iterator[Imported | LeftOut]:
    """Clips of a DAVIS folder: `JPEGImages/480p/<clip>/*.jpg` with `Annotations/480p/<clip>/*.png`.

    An object keeps its index over the clip; DAVIS gives it no class. 255 is void, and ignored, unless it is all that a
    clip has beside the background: then it is the object of DAVIS 2016, with id 1.
    """
    folder = next((f for f in ("480p", "Full-Resolution", ".") if (src / "Annotations" / f).is_dir()), None)
    if folder is None or not (src / "JPEGImages" / folder).is_dir():
        raise CorruptDataError(f"{src} has no JPEGImages and Annotations of one resolution; point to DAVIS itself")
    for pictures_of in sorted(path for path in (src / "JPEGImages" / folder).iterdir() if path.is_dir()):
        if not (src / "Annotations" / folder / pictures_of.name).is_dir():
            yield LeftOut(str(pictures_of), "has no annotations")
    for clip in sorted(path for path in (src / "Annotations" / folder).iterdir() if path.is_dir()):
        masks = sequence(clip, "*.png")
        pictures = [src / "JPEGImages" / folder / clip.name / f"{path.stem}.jpg" for path in masks]
        if more := len(list(pictures[0].parent.glob("*.jpg"))) - len(pictures):
            yield LeftOut(f"{more} pictures of {pictures[0].parent}", "have no mask")
        ids = same_size([read_indices(path) for path in masks], masks).astype(np.int32)
        void = ids == _VOID
        if set(np.unique(ids).tolist()) <= {0, _VOID}:
            ids[void] = 1
            void[:] = False
        ids[void] = 0
        rows = tuple(Instance(int(k), "object") for k in np.unique(ids) if k)
        truth = Segmentation(ids, rows, void if void.any() else None)
        yield Imported(f"davis-{clip.name}", read_rgbs(pictures), 24.0, segmentation=truth)
    named = (path for kind in ("JPEGImages", "Annotations") for path in (src / kind / folder).rglob("*"))
    yield from unread(src, named)
