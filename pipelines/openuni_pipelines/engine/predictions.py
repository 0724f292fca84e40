"""Predictions as ordinary files, which `unibench score` and other tools read: `OUT/<view>/<key>.…`."""

from __future__ import annotations

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
    folder = _folder(out, view)
    if view == "rgb":
        return (folder / key / f"{key}.mp4").exists()
    return (folder / f"{key}.npz").exists() or (folder / key).exists()


def write(out: Path, view: str, key: str, value: Any, fps: float, prompt: str) -> None:
    """Write one value of a view, whole or not at all.

    RGB is `video/KEY/KEY.mp4` with its caption in `prompt.txt` beside it; a view that is scored is `VIEW/KEY.npz` as
    its task reads it; one that is not, its stored members in `VIEW/KEY/`.
    """
    folder = _folder(out, view)
    if view == "rgb":
        even = value.frames[:, : value.frames.shape[1] // 2 * 2, : value.frames.shape[2] // 2 * 2]
        if prompt:
            write_atomic(folder / key / "prompt.txt", prompt.encode(), "generate")
        write_atomic(folder / key / f"{key}.mp4", encode_video(even, fps), "generate")
    elif view in tasks.names():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{key}.npz.tmp"
        with temporary.open("wb") as file:
            arrays: dict[str, Any] = dict(tasks.get_stored(view).arrays(value))
            np.savez_compressed(file, **arrays)
        temporary.replace(folder / f"{key}.npz")
    else:
        encoded = modalities.get(view).encode(value)
        for name, data in {**encoded.members, f"{view}.json": json.dumps(dict(encoded.meta)).encode()}.items():
            write_atomic(folder / key / name, data, "generate")


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


def _folder(out: Path, view: str) -> Path:
    return out / ("video" if view == "rgb" else view)
