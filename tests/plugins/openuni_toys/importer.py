"""An importer for tests: each `<clip>.npz` of a folder has `rgb` `[T, H, W, 3]` and `ids` `[T, H, W]`, 255 is void."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from unibench.formats.arrays import load_arrays
from unibench.importers import Imported, LeftOut


def read_toy(src: Path) -> Iterator[Imported | LeftOut]:
    for path in sorted(src.iterdir()):
        if path.suffix != ".npz":
            yield LeftOut(str(path), "is not read: only .npz are")
            continue
        arrays = load_arrays(path)
        void = arrays["ids"] == 255
        ids = np.where(void, 0, arrays["ids"]).astype(np.int32)
        rows = tuple(Instance(int(number), "toy") for number in np.unique(ids) if number)
        yield Imported(make_key(f"toy-{path.stem}"), arrays["rgb"], 8.0, segmentation=Segmentation(ids, rows, void))
