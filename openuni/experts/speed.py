"""How fast a network annotates on this machine, and its peak memory.

`openuni doctor --experts` measures. From the speed on a GPU, `openuni plan` estimates how many CPU cores feed it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert
from openuni.experts.people import LANDMARKS, TrackedPeople
from openuni.modalities.flow import Flow
from openuni.sample import Annotation

HEIGHT, WIDTH = 480, 832
_ON_CARD, _ON_CPU = 48, 2
"""Frames of the timed clip; on a GPU another clip runs before it, as a warm-up."""
_LONGEST = 60.0
"""Longest expected time of a measurement on a CPU, in seconds."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on a clip of 480×832 pixels in which two people stand.

    `peak_gib`: memory of the card; on a CPU what the whole process held.
    """

    device: str
    frames_per_second: float
    peak_gib: float

    @property
    def on_card(self) -> bool:
        return self.device != "cpu"

    def __str__(self) -> str:
        memory = "of the card's memory" if self.on_card else "of main memory"
        where = f"{self.device}, {WIDTH}×{HEIGHT}"
        return f"{self.frames_per_second:.3g} frames a second on {where}; {self.peak_gib:.1f} GiB {memory}"


def measured(loaded: Expert, before: Memory) -> Speed:
    """The speed of an expert after its `setup`; `before` was taken ahead of that.

    Raises OpenUniError, saying why, where it cannot be measured here, or the expert refuses the clip.
    """
    frames = _ON_CARD if before.on_card else _ON_CPU
    if not before.on_card and loaded.seconds_per_frame * frames > _LONGEST:
        raise OpenUniError(f"about {loaded.seconds_per_frame:.0f} s a frame on a CPU")
    if unknown := set(loaded.requires) - set(_found(1)):
        raise OpenUniError(f"it builds on {', '.join(sorted(unknown))}")
    before.forget()
    if before.on_card:
        loaded.annotate(clip(frames))
    shown = clip(frames)
    begin = time.perf_counter()
    loaded.annotate(shown)
    return Speed(before.device, frames / (time.perf_counter() - begin), before.peak_gib())


class Memory:
    """What is held from now on at most: of the card where there is one, else by this process."""

    def __init__(self) -> None:
        import torch

        from openuni.experts.weights import provenance

        self.device = str(provenance()["device"])
        self.on_card = torch.cuda.is_available()
        self.forget()
        if self.on_card:
            self._free, _ = torch.cuda.mem_get_info()

    def forget(self) -> None:
        """What was held until now, and is not any more, does not count."""
        if self.on_card:
            import torch

            torch.cuda.empty_cache()
        with suppress(OSError):  # then it is the most that the process has ever held
            _RESET.write_text("5")

    def peak_gib(self) -> float:
        """Libraries keep what they have taken of a card, so what is gone of it now is the most that was."""
        if self.on_card:
            import torch

            return float(self._free - torch.cuda.mem_get_info()[0]) / 2**30
        if not _STATUS.exists():
            return float("nan")
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20


def clip(frames: int) -> DecodedClip:
    """Smooth noise that slides to the right, with matching outputs of the detectors and of flow.

    Example:
        >>> clip(2).frames.shape
        (2, 480, 832, 3)
    """
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (HEIGHT // 8, (WIDTH + 4 * frames) // 8 + 1, 3), dtype=np.uint8)
    wide = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    shown = np.stack([wide[:, 4 * t : 4 * t + WIDTH] for t in range(frames)])
    return DecodedClip(
        "measured", shown, 16.0, {name: Annotation(value, 1.0) for name, value in _found(frames).items()}
    )


def _found(frames: int) -> Mapping[str, Any]:
    """By expert or modality, what networks get besides the frames: two standing people, and a motion of 4 pixels."""
    boxes = np.tile(np.array([[100, 60, 260, 460], [520, 80, 700, 470]], np.float32), (frames, 1, 1))
    unknown = np.full((frames, 2, LANDMARKS, 3), np.nan, np.float32)
    people = TrackedPeople(
        boxes=boxes,
        scores=np.full((frames, 2), 0.9, np.float32),
        landmarks=unknown,
        world=unknown,
        support=np.full(2, 0.9, np.float32),
        masks=np.zeros((frames, HEIGHT, WIDTH), np.uint8),
        thing_frames=np.zeros(0, np.int32),
        thing_boxes=np.zeros((0, 4), np.float32),
        thing_scores=np.zeros(0, np.float32),
        thing_classes=(),
    )
    motion = np.zeros((frames - 1, HEIGHT, WIDTH, 2), np.float32)
    motion[..., 0] = -4
    return {"rf_detr": people, "flow": Flow(motion, np.zeros(motion.shape[:3], np.bool_))}
