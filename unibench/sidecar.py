"""What truth has beyond OpenUni's columns, as ordinary files beside the shards: `truth/<key>/`.

`camera.npz` (intrinsics `[T, 3, 3]`, pose `[T, 4, 4]`, height, width: see `unibench.scenes.camera.Camera`),
`normals.npz` (float32 `[T, H, W, 3]`), `state.json` (the simulator's numbers and contacts, the digest of the truth).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from unibench.files import load_arrays
from unibench.render import Rendered
from unibench.scenes.camera import Camera
from unibench.scenes.graph import State

FOLDER = "truth"


def encode(rendered: Rendered) -> dict[str, bytes]:
    """The files of one rendered clip by name; the same clip gives the same bytes."""
    return {
        "camera.npz": encode_camera(rendered.truth.camera),
        "normals.npz": encode_normals(rendered.truth.normals),
        "state.json": _state(rendered.state, rendered.truth.digest()),
    }


def encode_camera(camera: Camera) -> bytes:
    """`camera.npz`, without pickles."""
    size = {"height": np.array(camera.height), "width": np.array(camera.width)}
    return _pack({"intrinsics": camera.intrinsics, "pose": camera.pose, **size})


def encode_normals(normals: npt.NDArray[np.float32]) -> bytes:
    """`normals.npz`."""
    return _pack({"normals": normals})


def read_camera(path: Path) -> Camera:
    """The camera of a clip. Raises CorruptDataError on a file that is not ours."""
    try:
        found = load_arrays(path)
        return Camera(found["intrinsics"], found["pose"], int(found["height"]), int(found["width"]))
    except (InvalidAnnotationError, ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{path} is no camera.npz of unibench: {error}") from error


def digest(path: Path) -> str:
    """The digest of the truth that `state.json` records."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["truth_sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise CorruptDataError(f"{path} is no state.json of unibench: {error}") from error


def _state(state: State, truth: str) -> bytes:
    arrays = ("position", "rotation", "velocity", "angular_velocity", "mass", "restitution", "gravity")
    document = {
        "truth_sha256": truth,
        "names": state.names,
        **{name: getattr(state, name).tolist() for name in arrays},
        "contacts": [{"time": c.time, "first": c.first, "second": c.second, "point": c.point} for c in state.contacts],
    }
    return json.dumps(document, sort_keys=True, allow_nan=False).encode() + b"\n"


def _pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    # np.savez stamps no time of its own into the archive (zipfile's default of 1980), so bytes repeat.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
