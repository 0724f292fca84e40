"""A contact sheet: samples in one picture, a row a clip and a column a modality; shared by all that show samples."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from openuni import modalities
from openuni.modalities import Frames
from openuni.modalities.flow import Flow
from openuni.sample import Sample

_CELL_WIDTH = 224
_GAP = 4
_CAPTION = 18
_INK = (230, 230, 230)
_OVER_RGB = frozenset({"skeleton", "segmentation", "densepose"})
"""Views that are mostly empty: shown over the dimmed clip, so that a person sees what they lie on."""


def draw(samples: Sequence[Sample], columns: Sequence[str], *, cell_width: int = _CELL_WIDTH) -> Frames:
    """The sheet as uint8 `[H, W, 3]`. Each cell is the clip's middle frame; an absent modality says why."""
    rows = [np.hstack([_header(name, cell_width) for name in columns])]
    for sample in samples:
        cell_height = max(1, round(cell_width * sample.record.height / sample.record.width))
        cells = [_cell(sample, name, cell_height, cell_width) for name in columns]
        rows.append(np.hstack([_framed(cell) for cell in cells]))
        caption = " ".join(sample.caption.split())
        rows.append(_line(f"{sample.key}  {caption}"[:160], rows[0].shape[1]))
    return np.vstack(rows)


def view(sample: Sample, name: str, frame: int) -> Frames:
    """One modality at one frame for people, uint8 `[H, W, 3]`; sparse views lie over the dimmed clip.

    Flow is that to the next frame, or the nearest that there is: the last frame has none, and a repeated frame none
    that is known.
    """
    modality, value = modalities.get(name), sample[name]
    run = slice(frame, frame + 1)
    if isinstance(value, Flow):
        known = np.flatnonzero(np.isfinite(value.forward).any(axis=(1, 2, 3)))
        first = int(known[np.abs(known - frame).argmin()]) if len(known) else 0
        run = slice(first, first + 2)
    picture: Frames = modality.show(modality.take(value, run))[0]
    return _over_rgb(sample, name, picture, frame)


def film(sample: Sample, name: str) -> Frames:
    """One modality at every frame for people, uint8 `[T, H, W, 3]`, in one scale of colours; else as `view`."""
    pictures: Frames = modalities.get(name).show(sample[name])
    return np.stack([_over_rgb(sample, name, picture, frame) for frame, picture in enumerate(pictures)])


def _over_rgb(sample: Sample, name: str, picture: Frames, frame: int) -> Frames:
    if name not in _OVER_RGB or "rgb" not in sample:
        return picture
    # The lighter of the two: the views' colours are bright, their backgrounds darker than the dimmed clip.
    lighter: Frames = np.maximum(picture, (sample["rgb"].frames[frame] * 0.45).astype(np.uint8))
    return lighter


def _cell(sample: Sample, name: str, height: int, width: int) -> Frames:
    if name not in sample:
        status = sample.statuses.get(name)
        return _absent(status.reason if status else "no such column", height, width)
    picture = view(sample, name, sample.record.frames // 2)
    small: Frames = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return small


def _absent(reason: str, height: int, width: int) -> Frames:
    cell = np.full((height, width, 3), 40, np.uint8)
    words, line, y = reason.split(), "", 16
    for word in [*words, ""]:
        if word and len(line) + len(word) < width // 7:
            line = f"{line} {word}".strip()
            continue
        cv2.putText(cell, line, (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (150, 150, 150), 1, cv2.LINE_AA)
        line, y = word, y + 14
    return cell


def _header(text: str, width: int) -> Frames:
    return _line(text, width + _GAP, scale=0.5)


def _line(text: str, width: int, scale: float = 0.38) -> Frames:
    strip = np.zeros((_CAPTION, width, 3), np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    cv2.putText(strip, ascii_text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
    return strip


def _framed(cell: Frames) -> Frames:
    framed: Frames = np.zeros((cell.shape[0], cell.shape[1] + _GAP, 3), np.uint8)
    framed[:, : cell.shape[1]] = cell
    return framed
