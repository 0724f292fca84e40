"""Predictions as ordinary files, which `unibench score` and other tools read: `OUT/<view>/<key>.…`.

OUT is a store: a folder, or a place in a bucket, where each file is put at once and whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from openuni import modalities
from openuni.storage import DOCUMENT, Store
from openuni.video import encode_video
from unibench import tasks

INFO = "predictions.json"
WRITER = "generate"
"""In the names of files that are not finished."""


def is_written(out: Store, view: str, key: str) -> bool:
    """Whether a prediction lies there already, whole."""
    place = folder(view)
    if view == "rgb":
        return out.exists(f"{place}/{key}/{key}.mp4")
    if view in tasks.names():
        return out.exists(f"{place}/{key}.npz")
    return out.exists(f"{place}/{key}/{view}.json")


def write(out: Store, view: str, key: str, value: Any, fps: float, prompt: str) -> None:
    """Write one value of a view, its last file last.

    RGB is `video/KEY/KEY.mp4` with its caption in `prompt.txt` beside it; a view that is scored is `VIEW/KEY.npz` as
    its task reads it; one that is not, its stored members in `VIEW/KEY/`.
    """
    place = folder(view)
    if view == "rgb":
        even = value.frames[:, : value.frames.shape[1] // 2 * 2, : value.frames.shape[2] // 2 * 2]
        if prompt:
            out.put(f"{place}/{key}/prompt.txt", prompt.encode(), WRITER)
        out.put(f"{place}/{key}/{key}.mp4", encode_video(even, fps), WRITER)
    elif view in tasks.names():
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(tasks.get_stored(view).arrays(value))
        np.savez_compressed(buffer, **arrays)
        out.put(f"{place}/{key}.npz", buffer.getvalue(), WRITER)
    else:
        encoded = modalities.get(view).encode(value)
        for name, data in {**encoded.members, f"{view}.json": json.dumps(dict(encoded.meta)).encode()}.items():
            out.put(f"{place}/{key}/{name}", data, WRITER)


def write_info(out: Store, values: Mapping[str, Any], fps: float | None) -> None:
    """`predictions.json`: the kind of depth, the layouts of joints and charts, and the rate where all clips have one.

    `values` is one value of each view; an earlier file keeps what it says of other views.
    """
    before = out.read(INFO, at_most=DOCUMENT) if out.exists(INFO) else b"{}"
    info: dict[str, Any] = json.loads(before)
    if "depth" in values:
        info["depth"] = {"kind": values["depth"].kind}
    for view in ("skeleton", "densepose"):
        if view in values:
            info[view] = {"layout": values[view].layout}
    if fps is None:
        info.pop("fps", None)
    else:
        info["fps"] = fps
    after = json.dumps(info, indent=1).encode() + b"\n"
    if after != before:
        out.put(INFO, after, WRITER)


def folder(view: str) -> str:
    """Where the predictions of a view lie in OUT."""
    return "video" if view == "rgb" else view
