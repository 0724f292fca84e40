"""Experts for tests: fast, slow, and some that misbehave. Each call is written down, so that tests can count them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, Url
from openuni.errors import OpenUniError
from openuni.experts import DecodedClip, Expert
from openuni.experts.base import Resources
from openuni.modalities import Encoded
from openuni.modalities.depth import Depth
from openuni.sample import Annotation
from openuni.storage import local
from openuni_toys.thermal import COLDEST, Thermal


def _note(name: str, key: str) -> None:
    """One line a call in the file that OPENUNI_TOY_CALLS names."""
    if path := os.environ.get("OPENUNI_TOY_CALLS"):
        with Path(path).open("a") as file:
            file.write(f"{name} {key}\n")
    if path := os.environ.get("OPENUNI_TOY_PEAK"):
        Path(path).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    time.sleep(float(os.environ.get("OPENUNI_TOY_SLEEP", "0")))


def _linger() -> None:
    """Widen the moments before and after a tar's rename, so that a test can strike in them."""
    seconds = float(os.environ.get("OPENUNI_TOY_LINGER", "0"))
    rename = local.rename
    if not seconds:
        return

    def slow(folder: int, temporary: str, name: str, *, create_only: bool = False) -> None:
        wait = seconds if name.endswith(".tar") else 0
        time.sleep(wait)
        rename(folder, temporary, name, create_only=create_only)
        time.sleep(wait)

    local.rename = slow


_linger()


def _kelvin(clip: DecodedClip) -> npt.NDArray[np.float32]:
    return (clip.frames.mean(axis=-1) / 255 * 150 + COLDEST).astype(np.float32)


class ToyThermal(Expert):
    name = "toy_thermal"
    version = 1
    modality = "thermal"
    license = "Apache-2.0"

    def setup(self) -> None:
        if path := os.environ.get("OPENUNI_TOY_SETUPS"):
            with Path(path).open("a") as file:
                file.write(f"{os.getpid()}\n")

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        return Annotation(Thermal(_kelvin(clip)), confidence=0.5)


class ToyDepth(Expert):
    """Brighter is nearer."""

    name = "toy_depth"
    version = 1
    modality = "depth"
    license = "Apache-2.0"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        return Annotation(Depth((2 - clip.frames.mean(axis=-1) / 255).astype(np.float32), "relative"))


WEIGHTS = bytes(1 << 16)
# Each node asks under the name of its own cache, so that the server can count by node.
_ADDRESS = f"{os.environ.get('OPENUNI_TOY_SERVER')}/{Path(os.environ.get('OPENUNI_HOME', 'home')).name}"


class ToyWeights(Expert):
    """Has a model file, and starts to work only when OPENUNI_TOY_TOGETHER processes have loaded it."""

    name = "toy_weights"
    version = 1
    modality = "thermal"
    license = "Apache-2.0"
    assets = (
        Asset(
            name="toy-weights",
            filename="toy/weights.bin",
            license="CC0-1.0",
            sha256=hashlib.sha256(WEIGHTS).hexdigest(),
            size=len(WEIGHTS),
            sources=(Url(_ADDRESS),),
        ),
    )

    def setup(self) -> None:
        loaded = len(assets.path(self.assets[0]).read_bytes())
        with Path(os.environ["OPENUNI_TOY_SETUPS"]).open("a") as file:
            file.write(f"{Path(os.environ['OPENUNI_HOME']).name} {os.getpid()} {loaded}\n")

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        deadline = time.monotonic() + 300
        while len(Path(os.environ["OPENUNI_TOY_SETUPS"]).read_text().splitlines()) < int(
            os.environ["OPENUNI_TOY_TOGETHER"]
        ):
            if time.monotonic() > deadline:
                raise RuntimeError("the other workers did not come")
            time.sleep(0.05)
        return Annotation(Thermal(_kelvin(clip)))


@dataclass(frozen=True)
class Found:
    boxes: npt.NDArray[np.float32]


class ToyFinder(Expert):
    """Finds one box a clip, for `toy_boxes`."""

    name = "toy_finder"
    version = 1
    modality = None
    license = "Apache-2.0"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        if clip.key.startswith("nobox"):
            raise OpenUniError("nothing to find")
        _, height, width, _ = clip.frames.shape
        return Annotation(Found(np.array([0, 0, width / 2, height / 2], np.float32)), scores={"people": 1.0})

    @staticmethod
    def encode_findings(value: Found) -> Encoded:
        return Encoded({"boxes.f32": value.boxes.tobytes()}, {})

    @staticmethod
    def decode_findings(encoded: Encoded) -> Found:
        return Found(np.frombuffer(encoded.members["boxes.f32"], np.float32))


class ToyBoxes(Expert):
    """Warm inside the finder's box."""

    name = "toy_boxes"
    version = 1
    modality = "thermal"
    license = "Apache-2.0"
    requires = ("toy_finder",)

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        x0, y0, x1, y1 = clip.annotations["toy_finder"].value.boxes.astype(int)
        kelvin = np.full(clip.frames.shape[:3], 280, np.float32)
        kelvin[:, y0:y1, x0:x1] = 310
        return Annotation(Thermal(kelvin), scores={"people": clip.annotations["toy_finder"].scores["people"]})


class StoppedInFinaliser:
    """SIGTERM comes while this is finalised, where Python ignores what a signal's handler raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


class ToyPoison(Expert):
    """Misbehaves on clips whose key begins with a misdeed."""

    name = "toy_poison"
    version = 1
    modality = "thermal"
    license = "Apache-2.0"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        _note(self.name, clip.key)
        misdeed = "" if os.environ.get("OPENUNI_TOY_CURED") else clip.key.split("-")[0]
        if misdeed == "raise":
            raise ValueError("a bug in an expert")
        if misdeed == "segfault":
            ctypes.string_at(0)
        if misdeed == "abort":
            os.abort()
        if misdeed == "swallow":
            StoppedInFinaliser()
        if misdeed == "exit":
            os._exit(7)
        if misdeed == "hang":
            time.sleep(3600)
        if misdeed == "allocate":
            hoard = []
            while True:
                hoard.append(np.empty(1 << 27, np.uint8))  # private memory counts, touched or not
        if misdeed == "nonsense":
            return Annotation(Thermal(np.full(clip.frames.shape[:3], -1, np.float32)))
        return Annotation(Thermal(_kelvin(clip)))


class ToyCard(ToyPoison):
    """The same on a card: its worker holds several clips."""

    name = "toy_card"
    resources = Resources(gpus=0.5, memory_gib=0.25)
