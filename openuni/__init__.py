"""OpenUni: video with depth, flow, segmentation, skeleton and DensePose, in WebDataset shards with a Parquet index.

import openuni

data = openuni.open("data/demo")
sample = data["bikes-street"]
sample.rgb.frames          # uint8 [T, H, W, 3]
sample.depth.values        # float32 [T, H, W]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openuni.shards.reader import Dataset

__version__ = "0.1.0"


def open(path: str) -> Dataset:
    """Open a dataset folder: a local path or any fsspec URL."""
    from openuni.shards.reader import Dataset

    return Dataset(str(path))
