"""What people look at while clips are rendered or generated: a contact sheet and a film of the views side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import contact_sheet
from openuni.modalities import Frames
from openuni.sample import Annotation, Record, Sample, Status
from openuni.video import encode_video

FOLDER = "previews"
_WIDEST = 320
"""Pixels of a view in a film; six views of a long clip at full size would take gigabytes to put together."""


def draw(
    record: Record, annotations: Mapping[str, Annotation[Any] | str], normals: npt.NDArray[np.float32] | None = None
) -> dict[str, bytes]:
    """`<key>.png`, a row of the views at the middle frame, and `<key>.mp4`, those that there are in motion.

    `annotations` are the sample's columns, or why it has none; `normals` `[T, H, W, 3]` in camera axes, NaN: sky.
    """
    values = {name: a.value for name, a in annotations.items() if not isinstance(a, str)}
    statuses = {name: Status(name in values, a if isinstance(a, str) else "") for name, a in annotations.items()}
    sample = Sample(record, statuses, values.__getitem__)
    sheet = contact_sheet.draw([sample], list(annotations))
    _, png = cv2.imencode(".png", sheet[..., ::-1])
    films = [_reduced(contact_sheet.film(sample, name)) for name in values]
    if normals is not None:
        films.append(_reduced(show_normals(normals)))
    film = np.concatenate(films, axis=2)
    # H.264's 4:2:0 colour needs even sides.
    even = np.pad(film, [(0, 0), (0, film.shape[1] % 2), (0, film.shape[2] % 2), (0, 0)], mode="edge")
    return {f"{record.key}.png": png.tobytes(), f"{record.key}.mp4": encode_video(even, record.fps)}


def _reduced(film: Frames) -> Frames:
    _, height, width, _ = film.shape
    if width <= _WIDEST:
        return film
    size = (_WIDEST, round(height * _WIDEST / width))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in film])


def show_normals(normals: npt.NDArray[np.float32]) -> Frames:
    """Normals as colours, uint8: red to the right, green up, blue towards the camera; the sky is black."""
    coded = np.nan_to_num(normals * [0.5, -0.5, -0.5] + 0.5, nan=0.0)
    return np.asarray(coded * 255 + 0.5).astype(np.uint8)
