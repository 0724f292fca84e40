"""Generation over files or a benchmark: what a configuration asks of each clip, and what lies in OUT afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import openuni
from openuni import modalities
from openuni.errors import AbsentModalityError, OpenUniError, PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Sample, make_key
from openuni.storage import DOCUMENT, Store, is_object_url, open_regular
from openuni.video import decode_video, encode_video
from openuni_pipelines.engine import predictions
from openuni_pipelines.engine.run import holding_store

if TYPE_CHECKING:  # torch is loaded when something is generated, not for --help
    import numpy as np
    import numpy.typing as npt

    from openuni_model.config import ModelConfig
    from openuni_model.dit import UnifiedDiT
    from openuni_model.generation import ClipRequest, Sampler

SETTINGS = "generation.json"
"""How each view in a folder of predictions was generated."""
_GUIDED_TEXT = 7.5
_STEPS = 50
_THEIR_STEPS = 20
"""Of the inference that comes with UnityVideo's weights."""
_LARGEST_IMAGE = 1 << 30
"""Bytes of a file that may be an image."""
_FPS = 16.0
"""Of clips from nothing: the rate that datasets are normalized to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """What to generate with what, and how."""

    checkpoint: Path | str | None = field(default=None, metadata={"exists": True})
    """Run, checkpoint or model folder; of a run the newest checkpoint's averaged weights. May lie in an object
    store."""
    unityvideo: Path | None = field(default=None, metadata={"exists": True})
    """Instead of --checkpoint: the public UnityVideo weights, a .safetensors file or the folder it is in."""
    task: Literal["joint", "cond", "est"]
    """joint: text to RGB and views; cond: views to RGB; est: RGB to views."""
    modality: tuple[str, ...]
    """Views besides RGB, comma-separated."""
    out: Path | str
    """Folder of predictions, or a place in an object store: s3://BUCKET/FOLDER, gs://…, az://…"""
    prompt: str = field(default="", metadata={"shown": "none, or with --bench each sample's own"})
    """Caption."""
    modality_prompt: str = field(default="", metadata={"shown": "the modality's own"})
    """What a view should show, for models trained with prompts: TEXT, or VIEW=TEXT;VIEW=TEXT."""
    input: tuple[str, ...] = ()
    """est: a video. cond: a file or folder of the view, or VIEW=PATH,VIEW=PATH (files that `unibench score` reads)."""
    bench: str | None = None
    """Dataset whose samples are the inputs, instead of --input."""
    image: Path | None = field(default=None, metadata={"exists": True})
    """joint, cond: first frame of the video."""
    continue_: Path | None = field(default=None, metadata={"exists": True, "flag": "--continue"})
    """joint, cond: a video to continue; its last frames (a quarter of the model's clip) begin the new one."""
    steps: int | None = field(default=None, metadata={"min": 1, "shown": "50, with --unityvideo 20"})
    """Steps of the solver."""
    solver: Literal["euler", "adams"] = "euler"
    """euler: first order. adams: second order (Adams–Bashforth), at the same cost."""
    guidance_scale: float | None = field(
        default=None, metadata={"shown": "7.5 with Wan's codec, 1 with pixels and --unityvideo"}
    )
    """Strength of the caption's guidance; 1: no guidance."""
    negative_prompt: str = field(default="", metadata={"shown": "the empty caption"})
    """joint, cond: text to guide away from."""
    shift: float | None = field(default=None, metadata={"shown": "the model's"})
    """Shift of the solver's times; a larger shift puts more steps near noise."""
    control_scale: tuple[str, ...] = field(default=(), metadata={"shown": "1"})
    """Strength of the controls: one number for all, or VIEW=NUMBER,VIEW=NUMBER."""
    frames: int | None = field(default=None, metadata={"min": 1, "shown": "the model's"})
    """joint: number of frames; more than the model's are made in overlapping windows."""
    aspect: float = 1.0
    """joint: width divided by height, unless --image or --continue decides it."""
    seed: int = field(default=0, metadata={"min": 0})
    """Seed of the noise."""
    vae_tiling: bool = False
    """Encode and decode large frames tile by tile, to save memory; the pictures change slightly."""
    batch: int = field(default=8, metadata={"min": 1})
    """Clips and windows generated at once."""
    depth_kind: Literal["metric", "relative", "affine_disparity"] | None = None
    """What the numbers of a depth file are."""
    wan: Path | None = field(default=None, metadata={"exists": True})
    """Folder with Wan's weights, in diffusers' layout or Wan's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to generate."""

    def __post_init__(self) -> None:
        """Raises PlanError naming the first value that asks for nothing."""
        for name in ("steps", "batch", "frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PlanError(f"--{name} {value}: it must be 1 or more")
        if not 0.05 <= self.aspect <= 20:
            raise PlanError(f"--aspect {self.aspect}: width over height lies between 0.05 and 20")
        if self.shift is not None and not 0 < self.shift <= 1000:
            raise PlanError(f"--shift {self.shift}: it is above 0 and at most 1000")
        if self.negative_prompt and self.task == "est":
            raise PlanError("--negative-prompt: estimation has no caption to guide; use it with --task joint or cond")
        if self.seed < 0:
            raise PlanError(f"--seed {self.seed}: it must be 0 or more")
        if not self.modality or len(set(self.modality)) != len(self.modality):
            raise PlanError(f"--modality {','.join(self.modality)}: name one or more views, each once")
        if (self.checkpoint is None) == (self.unityvideo is None):
            raise PlanError("give either --checkpoint, a model of ours, or --unityvideo, the public weights")
        if self.image is not None and self.continue_ is not None:
            raise PlanError("give either --image or --continue: a video begins with one of them")
        if self.begins_with is not None and (self.task == "est" or self.bench is not None):
            raise PlanError(
                "--image and --continue begin one video: use them with --task joint or cond, without --bench"
            )
        if "rgb" in self.modality:
            raise PlanError("--modality: list the views besides RGB; RGB is always there")
        _ = self.modality_prompts

    @property
    def modality_prompts(self) -> dict[str, str]:
        """The prompt of each view that has one given. Raises PlanError for a view that is not asked for."""
        parts = [part.partition("=") for part in self.modality_prompt.split(";") if part.strip()]
        if len(parts) == 1 and parts[0][0].strip() not in self.modality and len(self.modality) == 1:
            return {self.modality[0]: self.modality_prompt.strip()}
        if odd := [name for name, equals, _ in parts if not equals or name.strip() not in self.modality]:
            raise PlanError(
                f"--modality-prompt {odd[0]}: write VIEW=TEXT for views of --modality ({', '.join(self.modality)})"
            )
        return {name.strip(): text.strip() for name, _, text in parts}

    @property
    def weights(self) -> Path | str:
        """Where the model is."""
        where = self.checkpoint or self.unityvideo
        assert where is not None
        return where

    @property
    def solver_steps(self) -> int:
        """Steps asked for, or the model's own number."""
        return self.steps or (_STEPS if self.unityvideo is None else _THEIR_STEPS)

    @property
    def begins_with(self) -> Path | None:
        """The image or video that the generated one begins with."""
        return self.image or self.continue_

    @property
    def controls(self) -> tuple[str, ...]:
        """Views that are given."""
        return {"est": ("rgb",), "cond": self.modality, "joint": ()}[self.task]

    @property
    def wanted(self) -> tuple[str, ...]:
        """Views that are made."""
        return {"est": self.modality, "cond": ("rgb",), "joint": ("rgb", *self.modality)}[self.task]

    @property
    def decisive(self) -> dict[str, Any]:
        """What the values of predictions hang on, as plain JSON."""
        names = ("task", "prompt", "solver", "guidance_scale", "frames", "aspect", "seed", "depth_kind")
        given: dict[str, Any] = {"checkpoint": _resolved(self.weights), "controls": list(self.controls)}
        given["steps"] = self.solver_steps
        given["begins_with"] = None if self.begins_with is None else str(self.begins_with.resolve())
        # None where there is none: predictions made before there were such options can be continued.
        given["modality_prompt"] = self.modality_prompt or None
        given["negative_prompt"] = self.negative_prompt or None
        given["shift"] = self.shift
        return {**given, "control_scale": list(self.control_scale), **{name: getattr(self, name) for name in names}}


def _resolved(where: Path | str) -> str:
    """Where something is, whatever the working directory."""
    return str(where).rstrip("/") if is_object_url(str(where)) else str(Path(where).resolve())


@dataclass(frozen=True, slots=True)
class Timed:
    """A request and the frame rate of its clip."""

    request: ClipRequest
    fps: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """How many of the clips are through."""

    done: int
    total: int


Progress = Callable[["str | Progressed"], None]
"""Called with a sentence to say, and with how far generation is."""


def generate(config: GenerateConfig, progress: Progress | None = None) -> Path | str:
    """Generate into OUT/VIEW/KEY.npz and OUT/video/KEY/KEY.mp4, which `unibench score` reads; returns OUT.

    What lies in OUT already, made in the same way, is not made again. Raises PlanError where OUT holds predictions that
    were made in another way, where it is not ours or another run writes there, and OpenUniError where inputs are
    missing or do not fit the model.

    Files are written as the benchmark reads them, which the model does not know: so this is here, and
    `openuni_model.generate`, which it calls, gives values in memory for a model that is open.

    Example:
        >>> from openuni_model import TrainConfig, train
        >>> run = train(TrainConfig(
        ...     stage="2", data="data/demo", modalities=("depth",), out=Path("runs/depth"), steps=1,
        ...     global_batch_size=1, frames=4, size=16, validate_every=0, sample_every=0,
        ... ), progress=lambda news: None)
        >>> made = generate(GenerateConfig(
        ...     checkpoint=run, task="est", modality=("depth",), bench="data/demo", out=Path("runs/x"), steps=1
        ... ))
        >>> sorted(path.name for path in (made / "depth").iterdir())
        ['bikes-street.npz', 'bunny.npz', 'carphone.npz']
    """
    from unibench.report import previews

    with holding_store(config.out, [previews.FOLDER, *map(predictions.folder, config.wanted)]) as out:
        _generate(config, out, progress or (lambda _: None))
    return config.out


def _generate(config: GenerateConfig, out: Store, say: Progress) -> None:
    from openuni_model.codecs import open_codec
    from openuni_model.generation import generate as sample_clips
    from openuni_model.parallel import pick_device
    from openuni_model.texts import open_texts

    check_same_way(config, out)
    device = pick_device(config.device)
    model = open_model(config).to(device).eval()
    wan = config.wan or (config.unityvideo if config.unityvideo and config.unityvideo.is_dir() else None)
    codec = open_codec(model.config.codec, wan, device, tiled=config.vae_tiling)
    embed = open_texts(model.config, wan, device)
    for text in (config.prompt, config.negative_prompt, *config.modality_prompts.values()):
        embed.check(text)
    if config.modality_prompts and not model.config.in_context:
        raise PlanError(f"--modality-prompt: {config.weights} has no in-context learner; views read no prompt")
    sampler = sampler_of(config, model.config)
    requested = requests_over(config, model.config, say) if config.bench else iter([of_files(config, model.config)])
    total, done = len(openuni.open(config.bench)) if config.bench else 1, 0

    def keep_pictures(request: ClipRequest, pictures: Mapping[str, Any]) -> None:
        """A model with pictures in colours of its own: they are kept as it made them."""
        if model.config.pictures == "unityvideo":
            write_pictures(out, request.key, pictures, fps[request.key])

    made: dict[str, Any] = {}
    rates: set[float] = set()
    while some := list(islice(requested, config.batch)):
        fps = {timed.request.key: timed.fps for timed in some}
        rates.update(fps.values())
        new = [
            timed.request
            for timed in some
            if not all(predictions.is_written(out, view, timed.request.key) for view in timed.request.views)
        ]
        new = [replace(request, prompts=config.modality_prompts) for request in new]
        for request, values in sample_clips(model, codec, embed, new, sampler, keep_pictures):
            if not made:
                remember(config, out)
            # First the pictures: they are made again only with what they show.
            write_previews(out, request, values, fps[request.key])
            made.update(values)
            # What the numbers mean is known before they are: a killed run's last prediction is not made again.
            predictions.write_info(out, made, _common(rates))
            for view, value in values.items():
                predictions.write(out, view, request.key, value, fps[request.key], request.caption)
        done += len(some)
        say(Progressed(done, total))
    if made:
        predictions.write_info(out, made, _common(rates))


def _common(rates: set[float]) -> float | None:
    """The rate that all clips have."""
    return next(iter(rates)) if len(rates) == 1 else None


def open_model(config: GenerateConfig) -> UnifiedDiT:
    """The model to generate with. Raises OpenUniError where there is none, or it knows no view that is asked for."""
    from openuni_model.checkpoint import load_trained, trained_views
    from openuni_model.generation import check_views
    from openuni_model.remote import at_hand
    from openuni_model.unityvideo import open_unityvideo

    if config.unityvideo is not None:
        model = open_unityvideo(config.unityvideo)
        check_views(model, config.modality)
        return model
    with at_hand(config.weights) as here:
        model, learned = load_trained(here), trained_views(here)
    check_views(model, config.modality)
    if learned is not None and (never := [view for view in config.modality if view not in learned]):
        raise PlanError(f"{config.checkpoint} was never trained on {', '.join(never)}; it learned {', '.join(learned)}")
    return model


def write_pictures(out: Store, key: str, pictures: Mapping[str, Any], fps: float) -> None:
    """The views of a clip as the model made them, `OUT/previews/KEY.VIEW.mp4`."""
    import numpy as np

    from unibench.report import previews

    for view, picture in pictures.items():
        frames = np.rint(picture * 255).astype(np.uint8)
        out.put(f"{previews.FOLDER}/{key}.{view}.mp4", encode_video(frames, fps), predictions.WRITER)


def check_same_way(config: GenerateConfig, out: Store) -> None:
    """Raises PlanError where OUT has predictions of the wanted views that were made in another way."""
    before = _remembered(out)
    for view in config.wanted:
        theirs = before.get(view, {})
        changed = [name for name, value in config.decisive.items() if theirs and theirs.get(name) != value]
        if changed:
            first = changed[0]
            raise PlanError(
                f"{config.out} has {view} made with another {', '.join(changed)} ({first} was {theirs.get(first)!r}, "
                f"now {config.decisive[first]!r}); choose another --out, or delete {config.out}"
            )


def remember(config: GenerateConfig, out: Store) -> None:
    """Write down how the wanted views are made."""
    known = _remembered(out) | dict.fromkeys(config.wanted, config.decisive)
    out.put(SETTINGS, json.dumps(known, indent=1).encode() + b"\n", predictions.WRITER)


def _remembered(out: Store) -> dict[str, dict[str, Any]]:
    path = out.where(SETTINGS)
    if not out.exists(SETTINGS):
        return {}
    try:
        known = json.loads(out.read(SETTINGS, at_most=DOCUMENT))
    except ValueError as error:
        raise PlanError(f"{path} is not valid JSON ({error}); delete it, or choose another --out") from error
    if not isinstance(known, dict) or not all(isinstance(value, dict) for value in known.values()):
        raise PlanError(f"{path} is not what was written there; delete it, or choose another --out")
    return known


def write_previews(out: Store, request: ClipRequest, values: Mapping[str, Any], fps: float) -> None:
    """A contact sheet and a film of a clip: RGB, then the other views, whether given or made."""
    from unibench.report import previews

    shown = {**request.controls, **values}
    annotations = {view: Annotation(shown[view]) for view in sorted(shown, key=lambda view: (view != "rgb", view))}
    record = Record(request.key, request.frames, request.height, request.width, fps, caption=request.caption)
    for name, data in previews.draw(record, annotations).items():
        out.put(f"{previews.FOLDER}/{name}", data, predictions.WRITER)


def sampler_of(config: GenerateConfig, model: ModelConfig) -> Sampler:
    """Solver and guidance. Raises OpenUniError for a scale of something that is not a control, or a negative prompt
    that nothing uses."""
    from openuni_model.generation import Sampler
    from openuni_model.sampling import Guidance, passes

    scales = dict.fromkeys(config.controls, 1.0)
    for text in config.control_scale:
        name, _, number = text.rpartition("=")
        if name and name not in scales:
            raise OpenUniError(f"--control-scale {text}: the controls are {', '.join(config.controls) or 'none'}")
        try:
            scales.update({name: float(number)} if name else dict.fromkeys(config.controls, float(number)))
        except ValueError:
            raise OpenUniError(f"--control-scale {text}: write a number, or VIEW=NUMBER") from None
    scale = config.guidance_scale
    if scale is None:
        scale = 1.0 if model.codec == "pixel" or model.pictures == "unityvideo" else _GUIDED_TEXT
    guidance = Guidance(scale, tuple(scales.values()), config.negative_prompt)
    if config.negative_prompt and all(one.caption for one in passes(guidance, has_caption=True)):
        raise OpenUniError(
            f"--negative-prompt does nothing at --guidance-scale {scale:g}, which is the model itself; give another"
        )
    return Sampler(config.solver_steps, config.solver, guidance, config.seed, config.batch, config.shift)


def requests_over(config: GenerateConfig, model: ModelConfig, say: Progress) -> Iterator[Timed]:
    """A request for every sample of a dataset; one that lacks a control is passed over with a word."""
    assert config.bench is not None
    for sample in openuni.open(config.bench):
        try:
            yield Timed(of_sample(config, sample, model), sample.record.fps)
        except AbsentModalityError as error:
            say(f"passed over: {error}")


def of_sample(config: GenerateConfig, sample: Sample, model: ModelConfig) -> ClipRequest:
    """What the task asks of a sample: its RGB or its views are the controls. Raises AbsentModalityError."""
    from openuni_model.generation import ClipRequest

    record = sample.record
    caption = "" if config.task == "est" else config.prompt or sample.caption
    frames = config.frames or record.frames if config.task == "joint" else record.frames
    controls = {name: sample[name] for name in config.controls}
    return ClipRequest(record.key, caption, config.wanted, controls, frames, record.height, record.width)


def beginning(config: GenerateConfig, model: ModelConfig) -> Rgb | None:
    """What the video begins with: the image, or the last frames of the video. Raises OpenUniError if it is damaged."""
    from openuni_model.generation import overlap

    if config.begins_with is None:
        return None
    if config.image is None:
        frames, fps = decode_video(config.begins_with)
        return Rgb(frames[-overlap(model, model.frames) :], fps)
    return Rgb(read_image(config.image)[None], _FPS)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image of any kind that OpenCV reads, upright RGB `[H, W, 3]`. Raises OpenUniError where it is none."""
    import cv2
    import numpy as np

    with open_regular(path) as file:
        data = file.read() if file.size <= _LARGEST_IMAGE else b""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # nothing in it, or more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise OpenUniError(f"{path}: no image that can be read; give a PNG or JPEG file of at most 2³⁰ pixels")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def of_files(config: GenerateConfig, model: ModelConfig) -> Timed:
    """What the task asks with --prompt and --input. Raises OpenUniError where inputs are missing or do not agree."""
    from openuni_model.data import Buckets
    from openuni_model.generation import ClipRequest
    from unibench import tasks as scored
    from unibench.tasks.depth import DepthOptions

    views, inputs = config.modality, config.input
    start = beginning(config, model)
    if config.task == "joint":
        aspect = config.aspect if start is None else start.frames.shape[2] / start.frames.shape[1]
        height, width = Buckets(model).sides(aspect)
        key = make_key(config.prompt or (config.begins_with.stem if config.begins_with else "joint"))
        request = ClipRequest(
            key, config.prompt, config.wanted, {}, config.frames or model.frames, height, width, start=start
        )
        return Timed(request, _FPS if start is None else start.fps)
    if config.task == "est":
        if len(inputs) != 1:
            raise OpenUniError("--task est needs one --input, a video (or --bench, a dataset)")
        frames_, fps = decode_video(Path(inputs[0]))
        rgb = Rgb(frames_, fps)
        key = make_key(Path(inputs[0]).stem)
        return Timed(ClipRequest(key, "", config.wanted, {"rgb": rgb}, *frames_.shape[:3]), fps)
    named: dict[str, str] = {}
    for text in inputs:
        view, equals, path = text.partition("=")
        named.update({view: path} if equals else {views[0]: text})
    if set(named) != set(views):
        raise OpenUniError(f"--task cond needs an --input for {', '.join(views)}; given: {', '.join(named) or 'none'}")
    info = scored.Info(tasks={"depth": DepthOptions(config.depth_kind)})
    controls = {view: scored.get_stored(view).read(Path(named[view]), info) for view in views}
    sizes = {view: modalities.get(view).shape(value) for view, value in controls.items()}
    if len(set(sizes.values())) > 1:
        raise OpenUniError(f"controls must agree in frames and size: {sizes}")
    key = make_key(Path(named[views[0]]).stem)
    return Timed(ClipRequest(key, config.prompt, config.wanted, controls, *sizes[views[0]], start=start), _FPS)
