"""Cityscapes (Cordts et al. 2016): one picture a clip, instances and classes as numbers in a PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.formats.bounded import read_png, read_rgb
from unibench.importers.base import Imported, LeftOut, unread

CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""The 19 classes that are scored, by label id; all other ids are void (`ignoreInEval` of cityscapesScripts)."""
_THINGS = {24, 25, 26, 27, 28, 31, 32, 33}
"""Classes that have instances; their pixels without one are groups that nobody took apart, but of their class."""
_PICTURE = "_leftImg8bit.png"


def read_cityscapes(src: Path) -> Iterator[Imported | LeftOut]:
    """Pictures `leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` with `gtFine/<split>/<city>/<name>_gtFine_
    instanceIds.png`, or where those are not there `…_labelIds.png`, which tell classes alone.

    Ids are the file's: the label id, for an instance the label id times 1000 and its number. A picture that is void
    altogether (the test set, whose truth is not published) is left out.
    """
    pictures, truths = src / "leftImg8bit", src / "gtFine"
    if not pictures.is_dir() or not truths.is_dir():
        raise CorruptDataError(f"{src} has no leftImg8bit and gtFine; point to the folder that holds both")
    for other in sorted(path for path in src.iterdir() if path not in (pictures, truths)):
        yield LeftOut(str(other), "is not read: leftImg8bit and gtFine are")
    found = set()
    for picture in sorted(pictures.glob(f"*/*/*{_PICTURE}")):
        stem = str(picture.relative_to(pictures)).removesuffix(_PICTURE)
        found.add(stem)
        files = [truths / f"{stem}_gtFine_{kind}Ids.png" for kind in ("instance", "label")]
        file = next((path for path in files if path.is_file()), None)
        if file is None:
            yield LeftOut(str(picture), "has no instanceIds.png or labelIds.png")
            continue
        truth = _segmentation(file)
        if not truth.instances:
            yield LeftOut(str(picture), "is void altogether: its truth is not published")
            continue
        notes = () if file == files[0] else ("classes alone: each is one instance, and AP says nothing of objects",)
        rgb = read_rgb(picture)[None]
        yield Imported(f"cityscapes-{Path(stem).name}", rgb, 1.0, segmentation=truth, notes=notes)
    for kind in ("instance", "label"):
        for mask in sorted(truths.glob(f"*/*/*_gtFine_{kind}Ids.png")):
            stem = str(mask.relative_to(truths)).removesuffix(f"_gtFine_{kind}Ids.png")
            if stem not in found:
                found.add(stem)
                yield LeftOut(str(mask), "has no picture")
    named = (f"*/*/*_gtFine_{kind}Ids.png" for kind in ("instance", "label"))
    yield from unread(truths, (path for pattern in named for path in truths.glob(pattern)))
    yield from unread(pictures, pictures.glob(f"*/*/*{_PICTURE}"))


def _segmentation(file: Path) -> Segmentation:
    kept: npt.NDArray[Any]
    if file.name.endswith("_instanceIds.png"):
        values = read_png(file, np.uint16, 1).astype(np.int32)
        labels = np.where(values < 1000, values, values // 1000)
        groups = _THINGS
    else:
        values = labels = read_png(file, np.uint8, 1).astype(np.int32)
        groups = set()
    scored = np.isin(labels, list(CLASSES))
    kept = np.where(scored, values, 0).astype(np.int32)[None]
    numbers = [number for number in np.unique(kept).tolist() if number]
    rows = tuple(Instance(n, CLASSES[n if n < 1000 else n // 1000], crowd=n in groups) for n in numbers)
    return Segmentation(kept, rows, None if scored.all() else ~scored[None])
