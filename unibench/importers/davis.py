"""DAVIS (Perazzi et al. 2016; Pont-Tuset et al. 2017): pictures as JPEG, instance ids as palette PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from unibench.formats.bounded import read_rgbs, same_size, sequence
from unibench.formats.palette import read_indices
from unibench.importers.base import Imported

_VOID = 255
"""Index of pixels that the annotators left undecided; background here, for an id counts against a method."""


def read_davis(src: Path) -> Iterator[Imported]:
    """Clips of a DAVIS folder: `JPEGImages/480p/<clip>/*.jpg` with `Annotations/480p/<clip>/*.png`.

    An object keeps its index over the clip; DAVIS gives it no class.
    """
    folder = next((f for f in ("480p", "Full-Resolution", ".") if (src / "Annotations" / f).is_dir()), None)
    if folder is None or not (src / "JPEGImages" / folder).is_dir():
        raise CorruptDataError(f"{src} has no JPEGImages and Annotations of one resolution; point to DAVIS itself")
    for clip in sorted(path for path in (src / "Annotations" / folder).iterdir() if path.is_dir()):
        masks = sequence(clip, "*.png")
        pictures = [src / "JPEGImages" / folder / clip.name / f"{path.stem}.jpg" for path in masks]
        ids = same_size([read_indices(path) for path in masks], masks).astype(np.int32)
        ids[ids == _VOID] = 0
        rows = tuple(Instance(int(k), "object") for k in np.unique(ids) if k)
        yield Imported(make_key(f"davis-{clip.name}"), read_rgbs(pictures), 24.0, segmentation=Segmentation(ids, rows))
