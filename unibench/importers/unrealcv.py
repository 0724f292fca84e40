"""UnrealCV (Qiu et al. 2017): what its client saves, one file a frame and pass.

`lit/<n>.png`, `depth/<n>.npy` (`vget /camera/0/depth npy`, metres, planar) and `object_mask/<n>.png`
(`vget /camera/0/object_mask png`, a colour an object) with `objects.json`: `{"Cube_3": [r, g, b], …}` from
`vget /object/<name>/color`. UnrealCV 0.3 reads depth back through half precision: such arrays are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from openuni.storage import open_regular
from unibench.formats.bounded import read_bytes, read_npy, read_png, read_rgbs, same_size, sequence
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import check_not_half

_FAR = 1e4
"""Metres beyond which the depth is the sky's."""


def read_unrealcv(src: Path) -> Iterator[Imported | LeftOut]:
    """One clip. Raises InvalidAnnotationError where depth went through half precision."""
    pictures = sequence(src / "lit", "*.png")
    depths = [src / "depth" / f"{path.stem}.npy" for path in pictures]
    values = same_size([read_npy(path, np.float32, 2) for path in depths], depths)
    for path, frame in zip(depths, values, strict=True):
        check_not_half(frame, path, "depth")
    depth = np.where((values > 0) & (values < _FAR), values, np.float32(np.nan))
    yield Imported(
        make_key(f"unrealcv-{src.resolve().name}"),
        read_rgbs(pictures),
        30.0,
        depth=Depth(depth, "metric", exact=True),
        segmentation=_segmentation(src, pictures),
        notes=("UnrealCV saves no camera: units and kind of depth could not be checked",),
    )
    masks = [src / "object_mask" / path.name for path in pictures]
    yield from unread(src, [*pictures, *depths, *masks, src / "objects.json"])


def _segmentation(src: Path, pictures: list[Path]) -> Segmentation | None:
    if not (src / "object_mask").is_dir():
        return None
    paths = [src / "object_mask" / path.name for path in pictures]
    with open_regular(paths[0]) as file:
        channels = 4 if file.read(26)[25:] == b"\x06" else 3  # the PNG's colour type
    colours = same_size([read_png(path, np.uint8, channels)[..., :3] for path in paths], paths).astype(np.int32)
    packed = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
    table = src / "objects.json"
    try:
        names = {
            (int(r) << 16) | (int(g) << 8) | int(b): name for name, (r, g, b) in json.loads(read_bytes(table)).items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"{table} is not a table of names and colours: {error}") from error
    ids, rows = np.zeros(packed.shape, np.int32), []
    for k, (colour, name) in enumerate(sorted(names.items(), key=lambda item: item[1]), 1):
        ids[packed == colour] = k
        rows.append(Instance(k, re.sub(r"[_ ]?\d+$", "", name) or name))
    return Segmentation(ids, tuple(rows))
