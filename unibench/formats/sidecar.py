"""What truth has beyond OpenUni's columns, as ordinary files beside the shards: `truth/<key>/`.

`camera.npz` (intrinsics `[T, 3, 3]`, pose `[T, 4, 4]`, height, width: see `unibench.camera.Camera`),
`normals.npz` (float32 `[T, H, W, 3]`), `state.json` (the simulator's numbers and contacts, the hashes of the truth).

They are not columns: a column is a view of a video, with a picture for the model and a meaning under crop and flip, and
whatever is registered as one may be trained on. `docs/ground_truth.md` shows how to read them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import AbsentModalityError, CorruptDataError, InvalidAnnotationError
from openuni.sample import check_key
from unibench.camera import Camera
from unibench.formats.arrays import load_arrays, pack
from unibench.formats.bounded import read_bytes
from unibench.state import Contact, State

FOLDER = "truth"
LARGEST_STATE = 1 << 30
"""Bytes of a state.json that are read; thousands of bodies over a thousand frames are less."""


@dataclass(frozen=True, slots=True)
class SideCar:
    """What a clip of rendered or imported truth has besides its columns; each file is read when asked for.

    Reading raises AbsentModalityError where the clip has no such file (imported truth has no simulator, and often no
    camera or normals), CorruptDataError where the file is not ours.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path | str, key: str) -> SideCar:
        """The side-car of sample `key` of the dataset in the local folder `root`. Raises OpenUniError on a bad key."""
        return cls(Path(root) / FOLDER / check_key(key))

    @property
    def camera(self) -> Camera:
        """Intrinsics and poses of every frame."""
        return read_camera(self._file("camera.npz"))

    @property
    def normals(self) -> npt.NDArray[np.float32]:
        """`[T, H, W, 3]`, unit, camera axes (x right, y down, z away), towards the camera; NaN: sky."""
        return read_normals(self._file("normals.npz"))

    @property
    def state(self) -> State:
        """The simulator's bodies, contacts and gravity."""
        return read_state(self._file("state.json"))

    def _file(self, name: str) -> Path:
        if not (self.folder / name).is_file():
            raise AbsentModalityError(f"{self.folder.name} has no {name} in {self.folder}")
        return self.folder / name


def encode_camera(camera: Camera) -> bytes:
    """`camera.npz`, without pickles."""
    size = {"height": np.array(camera.height), "width": np.array(camera.width)}
    return pack({"intrinsics": camera.intrinsics, "pose": camera.pose, **size})


def encode_normals(normals: npt.NDArray[np.float32]) -> bytes:
    """`normals.npz`."""
    return pack({"normals": normals})


def read_camera(path: Path) -> Camera:
    """The camera of a clip. Raises CorruptDataError on a file that is not ours."""
    try:
        found = load_arrays(path)
        return Camera(found["intrinsics"], found["pose"], int(found["height"]), int(found["width"]))
    except (InvalidAnnotationError, ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{path} is not a camera.npz of unibench: {error}") from error


def read_normals(path: Path) -> npt.NDArray[np.float32]:
    """Normals `[T, H, W, 3]`, unit, camera axes, NaN: sky. Raises CorruptDataError on a file that is not ours."""
    try:
        normals = load_arrays(path)["normals"]
    except (InvalidAnnotationError, KeyError) as error:
        raise CorruptDataError(f"{path} is not a normals.npz of unibench: {error}") from error
    if normals.dtype != np.float32 or normals.ndim != 4 or normals.shape[3] != 3:
        raise CorruptDataError(f"{path} has {normals.dtype} {normals.shape}, not float32 [T, H, W, 3]")
    return normals


def read_state(path: Path) -> State:
    """The simulator's numbers of a rendered clip. Raises CorruptDataError on a file that is not ours."""
    found = _document(path)
    try:
        contacts = tuple(Contact(c["time"], c["first"], c["second"], tuple(c["point"])) for c in found["contacts"])
        # An empty list has no shape of its own: a scene in which nothing is simulated.
        T, N = len(found["position"]), len(found["names"])
        shapes: dict[str, tuple[int, ...]] = {
            "position": (T, N, 3),
            "velocity": (T, N, 3),
            "angular_velocity": (T, N, 3),
        }
        shapes |= {"rotation": (T, N, 3, 3), "mass": (N,), "restitution": (N,), "gravity": (3,)}
        arrays = {name: np.array(found[name], np.float64).reshape(shape) for name, shape in shapes.items()}
        return State(names=tuple(found["names"]), contacts=contacts, **arrays)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CorruptDataError(f"{path} is not a state.json of unibench: {error}") from error


def digest(path: Path) -> str:
    """`Truth.digest` of a rendered clip, as `state.json` records it. Raises CorruptDataError."""
    return _recorded(path, "truth_sha256")


def fingerprint(path: Path) -> str:
    """`Truth.fingerprint` of a rendered clip, as `state.json` records it. Raises CorruptDataError."""
    return _recorded(path, "truth_fingerprint")


def _recorded(path: Path, name: str) -> str:
    try:
        return str(_document(path)[name])
    except KeyError:
        raise CorruptDataError(f"{path} has no {name}; it was rendered by another version: render it again") from None


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path, LARGEST_STATE))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path} is not a state.json of unibench: {error}") from error
    if not isinstance(found, dict):
        raise CorruptDataError(f"{path} is not a state.json of unibench: it holds {type(found).__name__}")
    return found


def encode_state(state: State, *, digest: str, fingerprint: str) -> bytes:
    """`state.json`, with the hashes of the clip's truth; the same state gives the same bytes."""
    arrays = ("position", "rotation", "velocity", "angular_velocity", "mass", "restitution", "gravity")
    document = {
        "truth_sha256": digest,
        "truth_fingerprint": fingerprint,
        "names": state.names,
        **{name: getattr(state, name).tolist() for name in arrays},
        "contacts": [{"time": c.time, "first": c.first, "second": c.second, "point": c.point} for c in state.contacts],
    }
    return json.dumps(document, sort_keys=True, allow_nan=False).encode() + b"\n"
