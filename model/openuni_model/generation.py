"""Generation on whole clips: what is asked for, in windows that the model takes, back to values of modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import modalities
from openuni.modalities.base import Pictures
from openuni.modalities.rgb import Rgb
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
    `start` is the RGB that the clip begins with, one image or some frames; they count among `frames`.
    """

    key: str
    caption: str
    views: tuple[str, ...]
    controls: Mapping[str, Any]
    frames: int
    height: int
    width: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    start: Rgb | None = None


@dataclass(frozen=True, slots=True)
class Sampler:
    """How generation runs: solver steps, guidance, seed, and how many windows go through the model at once.

    `shift` moves the solver's times towards noise; None: as the model was trained.
    """

    steps: int = 50
    solver: Solver = "euler"
    guidance: Guidance = field(default_factory=Guidance)
    seed: int = 0
    batch: int = 8
    shift: float | None = None


OnPictures = Callable[[ClipRequest, Mapping[str, Pictures]], None]


def generate(
    model: UnifiedDiT,
    codec: Codec,
    embed: Embed,
    requested: Sequence[ClipRequest],
    sampler: Sampler,
    on_pictures: OnPictures | None = None,
) -> Iterator[tuple[ClipRequest, dict[str, Any]]]:
    """Yield each request with a value for every view of it, at its own size.

    A clip is resized (not cropped) to the nearest size of its aspect that the model takes and the result is resized
    back. Clips longer than the model's are generated in overlapping windows. Where RGB is generated, a window begins
    with the last frames of the one before it, given to the model clean, and has noise of its own. Estimated views are
    made window by window from the same noise, those of depth brought to one range by the frame that they share.
    `on_pictures` is called with each finished clip's pictures, as the model made them. Raises ModelConfigError for a
    clip shorter than the model's patch, or a view that the model does not know.

    This gives values in memory, for a model that is open; `openuni_pipelines.generate` opens weights, reads files or a
    dataset, and writes a folder of predictions.

    Example:
        >>> import openuni_model, torch
        >>> from openuni_model.codecs import PixelCodec
        >>> from openuni_model.config import preset
        >>> model = UnifiedDiT(preset("nano"))  # untrained; `openuni_model.checkpoint.load_trained` opens a run
        >>> embed = lambda text: torch.zeros(model.config.text_length, model.config.text_width)
        >>> ball = openuni_model.ClipRequest("ball", "a ball rolls", ("rgb", "depth"), {}, 8, 32, 32)
        >>> once = openuni_model.Sampler(steps=1)
        >>> for request, values in openuni_model.generate(model, PixelCodec(), embed, [ball], once):
        ...     request.key, values["rgb"].frames.shape, values["depth"].values.shape
        ('ball', (8, 32, 32, 3), (8, 32, 32))
    """
    clips = [_Clip(request, *_windows(model, request)) for request in requested]
    for number in range(max((len(clip.starts) for clip in clips), default=0)):
        jobs = [(clip, start) for clip in clips for start in clip.due(number)]
        for _, alike in groupby(jobs, key=lambda job: job[0].kind):
            group = list(alike)
            for chunk in (group[first : first + sampler.batch] for first in range(0, len(group), sampler.batch)):
                requests = [_request(codec, model.config, clip, start, sampler.seed) for clip, start in chunk]
                generated = sample_views(
                    model,
                    requests,
                    embed,
                    guidance=sampler.guidance,
                    steps=sampler.steps,
                    solver=sampler.solver,
                    shift=sampler.shift,
                )
                for (clip, start), latents in zip(chunk, generated, strict=True):
                    clip.made.append((start, {view: codec.decode(z) for view, z in latents.items()}))
                    if len(clip.made) == len(clip.starts):
                        joined = {view: clip.joined(view, model.config) for view in clip.request.views}
                        if on_pictures is not None:
                            on_pictures(clip.request, joined)
                        yield clip.request, {view: clip.value(view, joined[view], model.config) for view in joined}
                        clip.made.clear()


def check_views(model: UnifiedDiT, names: Sequence[str]) -> None:
    """Raise ModelConfigError for a view that the model does not know."""
    for name in names:
        model.config.index(name)


@dataclass(slots=True)
class _Clip:
    """A request, the size and first frames of its windows, and the pictures of those made so far."""

    request: ClipRequest
    bucket: Bucket
    starts: list[int]
    made: list[tuple[int, dict[str, Pictures]]] = field(default_factory=list)

    @property
    def chained(self) -> bool:
        """Whether a window needs the one before it."""
        return "rgb" in self.request.views

    @property
    def kind(self) -> tuple[Bucket, tuple[str, ...], tuple[str, ...]]:
        """What windows must have in common to go through the model together."""
        return self.bucket, self.request.views, tuple(self.request.controls)

    def due(self, number: int) -> list[int]:
        """The windows that can be made in round `number`: one where they are chained, else all in the first."""
        return self.starts[number : number + 1] if self.chained else self.starts if number == 0 else []

    def joined(self, view: str, config: ModelConfig) -> Pictures:
        """The windows' pictures end to end, cut to the request's length; later windows prevail."""
        total = max(start + len(made[view]) for start, made in self.made)
        whole = np.empty((total, *self.made[0][1][view].shape[1:]), np.float32)
        made = [(start, views[view]) for start, views in sorted(self.made, key=lambda window: window[0])]
        if view in _RANGED and len(made) > 1 and not self.chained and config.pictures == "openuni":
            made = _in_one_range(made)
        for start, picture in made:
            whole[start : start + len(picture)] = picture
        return whole[: self.request.frames]

    def value(self, view: str, pictures: Pictures, config: ModelConfig) -> Any:
        """Pictures read as a value of the request's size."""
        value = colours.from_picture(view, pictures, config)
        return modalities.get(view).resize(value, self.request.height, self.request.width)


_RANGED = ("depth",)
"""Views whose picture is relative to the range of its own clip."""
_LAST_UNKNOWN = ("flow",)
"""Views that do not know the last frame of a clip, so the next window must not begin with it."""


_EDGE = 1e-4
"""How near to black or white a grey saturates."""


def _in_one_range(windows: Sequence[tuple[int, Pictures]]) -> list[tuple[int, Pictures]]:
    """Windows of depth pictures, each relative to its own range, in a range that they have in common.

    Over the frames that it shares with the window before, a window's disparity takes on the mean and the deviation of
    that one's. (Least squares would shrink it by the noise of both, window after window.)
    """
    (start, first), *others = windows
    ranged, end, sure = [(start, _disparity(first))], start + len(first), _unsaturated(first)
    for start, picture in others:
        shared = end - start
        here, there = _disparity(picture), ranged[-1][1][-shared:]
        both = _unsaturated(picture)[:shared] & sure[-shared:]
        a, b = here[:shared][both], there[both]
        if len(a) > 1 and a.std() > _EDGE and b.std() > 0:
            here = (here - a.mean()) * (b.std() / a.std()) + b.mean()
        ranged.append((start, here))
        end, sure = start + len(picture), _unsaturated(picture)
    low = min(0.0, *(float(part.min()) for _, part in ranged))
    high = max(1.0, *(float(part.max()) for _, part in ranged))
    return [
        (start, np.repeat(np.sqrt((part - low) / (high - low))[..., None], 3, axis=-1).astype(np.float32))
        for start, part in ranged
    ]


def _disparity(picture: Pictures) -> npt.NDArray[np.float64]:
    grey: npt.NDArray[np.float64] = picture.mean(axis=-1, dtype=np.float64)
    return np.square(grey)


def _unsaturated(picture: Pictures) -> npt.NDArray[np.bool_]:
    """Pixels that are neither black nor white: of the others the disparity is not known."""
    grey: npt.NDArray[np.float32] = picture.mean(axis=-1)
    return (grey > _EDGE) & (grey < 1 - _EDGE)


def _windows(model: UnifiedDiT, request: ClipRequest) -> tuple[Bucket, list[int]]:
    """The size in which a request is made and the first frame of each window; the last one ends with the clip."""
    check_views(model, (*request.views, *request.controls))
    fit = Buckets(model.config)
    most = fit.length(model.config.frames)
    frames = fit.length(min(request.frames, most))
    if not request.controls:  # a length that does not fit is made longer, then cut
        frames = next(n for k in count(request.frames) if (n := fit.length(k)) >= min(request.frames, most))
        frames = min(frames, most)
    if frames <= 0:
        raise ModelConfigError(
            f"{request.key} has {request.frames} frames; the model needs {model.config.patch[0]} or more: "
            "is it an image?"
        )
    bucket = Bucket(frames, *fit.sides(request.width / request.height))
    shared = overlap(model.config, frames) if "rgb" in request.views else 1
    starts = list(range(0, max(1, request.frames - frames + 1), max(1, frames - shared)))
    if starts[-1] + frames < request.frames:
        starts.append(request.frames - frames)
    return bucket, starts


def overlap(config: ModelConfig, frames: int) -> int:
    """How many frames of what came before a window of `frames` begins with: a quarter, or the least that fits."""
    fit = Buckets(config)
    return max(fit.length(frames // 4), fit.length(config.patch[0]))


def _request(codec: Codec, config: ModelConfig, clip: _Clip, start: int, seed: int) -> LatentRequest:
    request, bucket = clip.request, clip.bucket
    latents = {}
    for name, value in request.controls.items():
        modality, frames = modalities.get(name), slice(start, start + bucket.frames)
        if name in _RANGED:
            resized = modality.resize(value, bucket.height, bucket.width)
            picture = colours.to_picture(name, resized, config)[frames]
        else:
            resized = modality.resize(modality.take(value, frames), bucket.height, bucket.width)
            picture = colours.to_picture(name, resized, config)
        latents[name] = codec.encode(picture)
    size = codec.latent_size(bucket.frames, bucket.height, bucket.width)
    given = {name: codec.encode(pictures) for name, pictures in _given(config, clip, start).items()}
    key = f"{request.key}@{start}" if start and clip.chained else request.key
    return LatentRequest(key, request.caption, request.views, latents, size, seed, request.prompts, given)


def _given(config: ModelConfig, clip: _Clip, start: int) -> dict[str, Pictures]:
    """What a window begins with, by view: the end of the window before it, or what the request starts with."""
    fit, unit = Buckets(config), Buckets(config).length(config.patch[0])
    if start and clip.chained:
        before, made = clip.made[-1]
        pictures = {view: picture[start - before :] for view, picture in made.items() if view not in _LAST_UNKNOWN}
    elif clip.request.start is not None and "rgb" in clip.request.views:
        rgb = modalities.get("rgb")
        small = rgb.resize(clip.request.start, clip.bucket.height, clip.bucket.width)
        picture = rgb.to_picture(small)
        # A token may hold more frames than one: an image fills it.
        pictures = {"rgb": np.concatenate([picture, *[picture[-1:]] * (unit - len(picture))])}
    else:
        return {}
    most = clip.bucket.frames - unit
    return {view: picture[: fit.length(min(len(picture), most))] for view, picture in pictures.items() if most > 0}
