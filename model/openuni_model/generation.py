"""Generation on whole clips: what is asked for, in windows that the model takes, back to values of modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from openuni import modalities
from openuni.modalities.base import Pictures
from openuni_model import colours
from openuni_model.batch import Embed
from openuni_model.codecs import Codec
from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.data import Bucket, Buckets
from openuni_model.dit import UnifiedDiT
from openuni_model.flow import Solver
from openuni_model.sampling import Guidance, LatentRequest, sample_views


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A clip to generate: `views` (RGB among them or not) from a caption and `controls`, values of other views.

    `prompts` are texts of views ("segment the box on the left"); a view without one reads its modality's own prompt.
    Without controls `frames`, `height` and `width` are the size asked for; with controls they are the controls' own.
    """

    key: str
    caption: str
    views: tuple[str, ...]
    controls: Mapping[str, Any]
    frames: int
    height: int
    width: int
    prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampler:
    """How generation runs: solver steps, guidance, seed, and how many windows go through the model at once."""

    steps: int = 50
    solver: Solver = "euler"
    guidance: Guidance = field(default_factory=Guidance)
    seed: int = 0
    batch: int = 8


def generate(
    model: UnifiedDiT, codec: Codec, embed: Embed, requested: Sequence[ClipRequest], sampler: Sampler
) -> Iterator[tuple[ClipRequest, dict[str, Any]]]:
    """Yield each request with a value for every view of it, at its own size.

    A clip is resized (not cropped) to the nearest size of its aspect that the model takes and the result is resized
    back. Longer clips than the model's are generated in windows that share one frame with their neighbour and start
    from the same noise; windows do not know of each other, so across their seams nothing is promised. Raises
    ModelConfigError for a clip shorter than the model's patch, or a view that the model does not know.
    """
    jobs = [(request, bucket, start) for request in requested for bucket, start in _windows(model, request)]
    made: dict[str, list[tuple[int, dict[str, Pictures]]]] = {}
    for _, alike in groupby(jobs, key=lambda job: (job[1], job[0].views, tuple(job[0].controls))):
        group = list(alike)
        for chunk in (group[first : first + sampler.batch] for first in range(0, len(group), sampler.batch)):
            requests = [
                _request(codec, model.config, request, bucket, start, sampler.seed) for request, bucket, start in chunk
            ]
            generated = sample_views(
                model, requests, embed, guidance=sampler.guidance, steps=sampler.steps, solver=sampler.solver
            )
            for (request, _, start), latents in zip(chunk, generated, strict=True):
                windows = made.setdefault(request.key, [])
                windows.append((start, {view: codec.decode(z) for view, z in latents.items()}))
                if len(windows) == sum(job[0].key == request.key for job in jobs):
                    del made[request.key]
                    yield request, {view: _value(model.config, request, view, windows) for view in request.views}


def check_views(model: UnifiedDiT, names: Sequence[str]) -> None:
    """Raise ModelConfigError for a view that the model does not know."""
    for name in names:
        model.config.index(name)


def _windows(model: UnifiedDiT, request: ClipRequest) -> list[tuple[Bucket, int]]:
    """The size in which a request is made and the first frame of each window; the last one ends with the clip."""
    check_views(model, (*request.views, *request.controls))
    fit = Buckets(model.config)
    frames = fit.length(min(request.frames, model.config.frames))
    if frames <= 0:
        raise ModelConfigError(
            f"{request.key} has {request.frames} frames; the model needs {model.config.patch[0]} or more: "
            "is it an image?"
        )
    bucket = Bucket(frames, *fit.sides(request.width / request.height))
    starts = list(range(0, max(1, request.frames - frames + 1), max(1, frames - 1)))
    if request.controls and starts[-1] + frames < request.frames:
        starts.append(request.frames - frames)
    return [(bucket, start) for start in (starts if request.controls else [0])]


def _request(
    codec: Codec, config: ModelConfig, request: ClipRequest, bucket: Bucket, start: int, seed: int
) -> LatentRequest:
    latents = {}
    for name, value in request.controls.items():
        modality = modalities.get(name)
        window = modality.take(value, slice(start, start + bucket.frames))
        latents[name] = codec.encode(
            colours.to_picture(name, modality.resize(window, bucket.height, bucket.width), config)
        )
    size = codec.latent_size(bucket.frames, bucket.height, bucket.width)
    return LatentRequest(request.key, request.caption, request.views, latents, size, seed, request.prompts)


def _value(
    config: ModelConfig, request: ClipRequest, view: str, windows: Sequence[tuple[int, Mapping[str, Pictures]]]
) -> Any:
    """The windows' pictures end to end, read as a value and brought to the request's size; later windows prevail."""
    pictures = [(start, made[view]) for start, made in windows]
    total = max(start + len(picture) for start, picture in pictures)
    whole = np.empty((total, *pictures[0][1].shape[1:]), np.float32)
    for start, picture in pictures:
        whole[start : start + len(picture)] = picture
    value = colours.from_picture(view, whole, config)
    return modalities.get(view).resize(value, request.height, request.width)
