"""Predictions as ordinary files, which `unibench score` and other tools read: `OUT/<view>/<key>.…`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openuni import modalities
from openuni.shards.layout import write_atomic
from openuni.video import encode_video
from unibench import tasks

INFO = "predictions.json"


def is_written(out: Path, view: str, key: str) -> bool:
    """Whether a prediction lies there already."""
    place = out / folder(view)
    if view == "rgb":
        return (place / key / f"{key}.mp4").exists()
    return (place / f"{key}.npz").exists() or (place / key).exists()


def write(out: Path, view: str, key: str, value: Any, fps: float, prompt: str) -> None:
    """Write one value of a view, whole or not at all.

    RGB is `video/KEY/KEY.mp4` with its caption in `prompt.txt` beside it; a view that is scored is `VIEW/KEY.npz` as
    its task reads it; one that is not, its stored members in `VIEW/KEY/`.
    """
    place = out / folder(view)
    if view == "rgb":
        even = value.frames[:, : value.frames.shape[1] // 2 * 2, : value.frames.shape[2] // 2 * 2]
        if prompt:
            write_atomic(place / key / "prompt.txt", prompt.encode(), "generate")
        write_atomic(place / key / f"{key}.mp4", encode_video(even, fps), "generate")
    elif view in tasks.names():
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(tasks.get_stored(view).arrays(value))
        np.savez_compressed(buffer, **arrays)
        write_atomic(place / f"{key}.npz", buffer.getvalue(), "generate")
    else:
        encoded = modalities.get(view).encode(value)
        for name, data in {**encoded.members, f"{view}.json": json.dumps(dict(encoded.meta)).encode()}.items():
            write_atomic(place / key / name, data, "generate")


def write_info(out: Path, values: Mapping[str, Any], fps: float | None) -> None:
    """`predictions.json`: the kind of depth, the layouts of joints and charts, and the rate where all clips have one.

    `values` is one value of each view; an earlier file keeps what it says of other views.
    """
    path = out / INFO
    info: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if "depth" in values:
        info["depth"] = {"kind": values["depth"].kind}
    for view in ("skeleton", "densepose"):
        if view in values:
            info[view] = {"layout": values[view].layout}
    if fps is None:
        info.pop("fps", None)
    else:
        info["fps"] = fps
    write_atomic(path, json.dumps(info, indent=1).encode() + b"\n", "generate")


def folder(view: str) -> str:
    """Where the predictions of a view lie in OUT."""
    return "video" if view == "rgb" else view
