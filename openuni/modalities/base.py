"""What a modality is: an array with units, its storage, its pictures, its geometry and its checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from openuni import registry

V = TypeVar("V")
Pictures = npt.NDArray[np.float32]
"""Float pictures for the model, `[T, H, W, 3]` in [0, 1]."""
Frames = npt.NDArray[np.uint8]
"""Frames for people (and RGB itself), `[T, H, W, 3]` uint8."""
ColourRange = tuple[float, float]
"""The numbers at either end of a map's colours."""


@dataclass(frozen=True, slots=True)
class Box:
    """A crop in pixels: rows `y0:y1`, columns `x0:x1`."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as it is stored: bytes by member suffix (`depth.mkv`), and the few JSON numbers that decode them."""

    members: Mapping[str, bytes]
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing that a modality says of one pixel: `depth 2.31 m`. A float that is NaN means unknown."""

    name: str
    value: float | int | str
    unit: str = ""


class Modality(ABC, Generic[V]):
    """One view of a clip. `V` is a frozen dataclass of arrays; every method is pure and keeps `T` frames.

    Arrays are `[T, H, W, …]` with x to the right and y down, pixel (i, j) centred at (j + .5, i + .5).
    """

    name: ClassVar[str]
    prompt: ClassVar[str]
    """What the picture for the model shows, in words (the paper's in-context learner reads it)."""
    reaches: ClassVar[int] = 0
    """Frames after it that a frame's own picture needs: one for flow."""

    @abstractmethod
    def shape(self, value: V) -> tuple[int, int, int]:
        """Frames, height and width of the clip that `value` annotates."""

    @abstractmethod
    def check(self, value: V) -> None:
        """Raise InvalidAnnotationError on nonsense: wrong shape, type, range or ids."""

    @abstractmethod
    def encode(self, value: V) -> Encoded:
        """Bytes for storage; the same value always gives the same bytes in one environment."""

    def encode_compact(self, value: V) -> Encoded:
        """Fewer bytes, at an error that the modality states, for what was predicted; the same as `encode` where it has
        no such form. `decode` reads both."""
        return self.encode(value)

    @abstractmethod
    def decode(self, encoded: Encoded) -> V:
        """The stored value, to the stated precision. Raises CorruptDataError on bytes that are not ours."""

    def decode_part(self, encoded: Encoded, frames: slice) -> V:
        """What `take` gives of the decoded whole, sooner where the storage can begin at any frame.

        Example:
            >>> import openuni
            >>> from openuni import modalities
            >>> stored = openuni.open("data/demo").result("bunny", "depth").encoded
            >>> modalities.get("depth").decode_part(stored, slice(2, 3)).values.shape
            (1, 16, 24)
        """
        return self.take(self.decode(encoded), frames)

    @abstractmethod
    def to_picture(self, value: V) -> Pictures:
        """The picture that the model reads and generates."""

    @abstractmethod
    def from_picture(self, picture: Pictures) -> V:
        """Back from a picture, also from a noisy one that a model generated; what is lost is said by each modality."""

    @abstractmethod
    def show(self, value: V) -> Frames:
        """The picture that people look at."""

    def colour_range(self, value: V) -> ColourRange | None:
        """The numbers between which `show` spreads its colours; None where they do not depend on the value."""
        return None

    @property
    def has_colour_range(self) -> bool:
        """Whether the colours of `show` depend on the value, so that a clip must be looked at for them."""
        return type(self).colour_range is not Modality.colour_range

    def show_within(self, value: V, within: ColourRange | None) -> Frames:
        """`show` with the colours of another range: so a part of a clip looks as it does in the whole."""
        return self.show(value)

    def read_out(self, value: V, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """What the value says of pixel (y, x) of a frame, in its own units; nothing where a modality has no reading.

        Example:
            >>> import openuni
            >>> from openuni import modalities
            >>> flow = openuni.open("data/demo")["bunny"].flow
            >>> [reading.name for reading in modalities.get("flow").read_out(flow, frame=0, y=3, x=5)]
            ['u', 'v']
        """
        return ()

    @abstractmethod
    def take(self, value: V, frames: slice) -> V:
        """The same annotation of a run of frames (`frames` has step 1)."""

    @abstractmethod
    def crop(self, value: V, box: Box) -> V:
        """The annotation of the cropped clip; `box` lies inside the frame."""

    @abstractmethod
    def resize(self, value: V, height: int, width: int) -> V:
        """The annotation of the resized clip."""

    @abstractmethod
    def flip(self, value: V) -> V:
        """The annotation of the clip mirrored left to right."""


def get(name: str) -> Modality[Any]:
    """The modality registered as `name`."""
    modality: Modality[Any] = registry.load("modalities", name)()
    return modality
