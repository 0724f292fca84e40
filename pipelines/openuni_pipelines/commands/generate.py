"""`openuni generate`: text to all views, views to video, video to views; one clip, or every clip of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

import openuni
from openuni import modalities
from openuni.errors import AbsentModalityError, OpenUniError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Sample, make_key
from openuni.shards import layout
from openuni.video import decode_video
from openuni_pipelines.engine import predictions

if TYPE_CHECKING:  # torch is loaded when generation starts, not for --help
    from openuni_model.config import ModelConfig
    from openuni_model.generate import Sampler, Wish

_GUIDED_TEXT = 7.5
"""The paper's strength of the text, for models on Wan's codec; small pixel models are sampled unguided."""
_FPS = 16.0
"""Frames a second of what is generated from nothing: the rate that datasets are normalised to."""


@click.command("generate")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Run, checkpoint or model folder; of a run the newest checkpoint's averaged weights.",
)
@click.option(
    "--task",
    type=click.Choice(["joint", "cond", "est"]),
    required=True,
    help="joint: text to RGB and views; cond: views to RGB; est: RGB to views.",
)
@click.option("--modality", "views", required=True, help="Views besides RGB, comma-separated.")
@click.option("--prompt", default="", help="Caption.  [default: none, or with --bench each sample's own]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    help="est: a video. cond: a file or folder of the view, or "
    "VIEW=PATH for each of several (files that `unibench score` reads).",
)
@click.option("--bench", help="Dataset to generate over, instead of --input.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of predictions.")
@click.option("--steps", default=50, show_default=True, help="Steps of the solver.")
@click.option(
    "--solver",
    type=click.Choice(["euler", "adams"]),
    default="euler",
    show_default=True,
    help="Of first order, or of second (Adams–Bashforth) at the same cost.",
)
@click.option("--text-strength", type=float, help="1: the model itself.  [default: 7.5 with Wan's codec, else 1]")
@click.option("--control-strength", multiple=True, help="One for all controls, or VIEW=STRENGTH.  [default: 1]")
@click.option("--frames", type=int, help="joint: how many.  [default: the model's]")
@click.option("--aspect", default=1.0, show_default=True, help="joint: width over height.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch", default=8, show_default=True, help="Clips and windows painted at once.")
@click.option(
    "--depth-kind",
    type=click.Choice(["metric", "relative", "affine_disparity"]),
    help="What the numbers of a depth file are.",
)
@click.option("--wan", type=click.Path(path_type=Path, exists=True), help="Folder of Wan in diffusers layout.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def generate_command(**options: Any) -> None:
    """Generate with a trained model into OUT/VIEW/KEY.npz and OUT/video/KEY/KEY.mp4, which `unibench score` reads.

    OUT/previews has pictures and films of what was given and what was made, side by side. What lies in OUT already is
    not made again.
    """
    from openuni_model.checkpoint import load_trained
    from openuni_model.codecs import open_codec
    from openuni_model.generate import check_views, generate
    from openuni_model.parallel import pick_device
    from openuni_model.texts import open_text_encoder

    console = Console(stderr=True)
    device = pick_device(options["device"])
    model = load_trained(options["checkpoint"]).to(device).eval()
    views = tuple(options["views"].split(","))
    check_views(model, views)
    codec = open_codec(model.config.codec, options["wan"], device)
    embed = open_text_encoder(model.config, options["wan"], device)
    embed.check(options["prompt"])
    sampler = make_sampler(options, views, model.config)
    wishes = wishes_over(options, views) if options["bench"] else iter([wish_of_files(options, views, model.config)])
    total = len(openuni.open(options["bench"])) if options["bench"] else 1
    out: Path = options["out"]
    made: dict[str, Any] = {}
    rates: set[float] = set()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("generating", total=total)
        while some := list(islice(wishes, options["batch"])):
            fps = {timed.wish.key: timed.fps for timed in some}
            rates.update(fps.values())
            new = [
                timed.wish
                for timed in some
                if not all(predictions.is_written(out, view, timed.wish.key) for view in timed.wish.views)
            ]
            for wish, values in generate(model, codec, embed, new, sampler):
                # First the pictures: they are made again only with what they show.
                write_previews(out, wish, values, fps[wish.key])
                for view, value in values.items():
                    predictions.write(out, view, wish.key, value, fps[wish.key], wish.caption)
                made.update(values)
            bar.advance(shown, len(some))
    if made:
        predictions.write_info(out, made, rates.pop() if len(rates) == 1 else None)
    console.print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def write_previews(out: Path, wish: Wish, values: Mapping[str, Any], fps: float) -> None:
    """A contact sheet and a film of a clip: RGB, then the other views, whether given or made."""
    from unibench.report import previews

    shown = {**wish.controls, **values}
    annotations = {view: Annotation(shown[view]) for view in sorted(shown, key=lambda view: (view != "rgb", view))}
    record = Record(wish.key, wish.frames, wish.height, wish.width, fps, caption=wish.caption)
    for name, data in previews.draw(record, annotations).items():
        layout.write_atomic(out / previews.FOLDER / name, data, "generate")


@dataclass(frozen=True, slots=True)
class Timed:
    """A wish and the frame rate of its clip."""

    wish: Wish
    fps: float


def make_sampler(options: Mapping[str, Any], views: Sequence[str], config: ModelConfig) -> Sampler:
    """Solver and strengths. Raises OpenUniError for a strength of something that is no control."""
    from openuni_model.generate import Sampler
    from openuni_model.sampling import Guidance

    controls = {"est": ("rgb",), "cond": tuple(views), "joint": ()}[options["task"]]
    strengths = dict.fromkeys(controls, 1.0)
    for text in options["control_strength"]:
        name, _, number = text.rpartition("=")
        if name and name not in strengths:
            raise OpenUniError(f"--control-strength {text}: the controls are {', '.join(controls) or 'none'}")
        try:
            strengths.update({name: float(number)} if name else dict.fromkeys(controls, float(number)))
        except ValueError:
            raise OpenUniError(f"--control-strength {text}: write a number, or VIEW=NUMBER") from None
    text_strength = options["text_strength"]
    if text_strength is None:
        text_strength = 1.0 if config.codec == "pixel" else _GUIDED_TEXT
    guidance = Guidance(text_strength, tuple(strengths.values()))
    return Sampler(options["steps"], options["solver"], guidance, options["seed"], options["batch"])


def wishes_over(options: Mapping[str, Any], views: tuple[str, ...]) -> Iterator[Timed]:
    """A wish for every sample of a dataset; one that lacks a control is passed over with a word."""
    for sample in openuni.open(options["bench"]):
        try:
            yield Timed(wish_of_sample(sample, options["task"], views, options["prompt"]), sample.record.fps)
        except AbsentModalityError as error:
            click.echo(f"passed over: {error}", err=True)


def wish_of_sample(sample: Sample, task: str, views: tuple[str, ...], prompt: str) -> Wish:
    """What `task` asks of a sample: its RGB or its views are the controls. Raises AbsentModalityError."""
    from openuni_model.generate import Wish

    controls = {"est": ("rgb",), "cond": views, "joint": ()}[task]
    wanted = {"est": views, "cond": ("rgb",), "joint": ("rgb", *views)}[task]
    caption = "" if task == "est" else prompt or sample.caption
    r = sample.record
    return Wish(r.key, caption, wanted, {name: sample[name] for name in controls}, r.frames, r.height, r.width)


def wish_of_files(options: Mapping[str, Any], views: tuple[str, ...], config: ModelConfig) -> Timed:
    """What `task` asks with --prompt and --input. Raises OpenUniError where inputs are missing or do not agree."""
    from openuni_model.data import Fit
    from openuni_model.generate import Wish
    from unibench import tasks as scored
    from unibench.tasks.depth import DepthOptions

    task, prompt, inputs = options["task"], options["prompt"], options["inputs"]
    if task == "joint":
        height, width = Fit(config).sides(options["aspect"])
        frames = options["frames"] or config.frames
        return Timed(Wish(make_key(prompt or "joint"), prompt, ("rgb", *views), {}, frames, height, width), _FPS)
    if task == "est":
        if len(inputs) != 1:
            raise OpenUniError("--task est needs one --input, a video (or --bench, a dataset)")
        frames_, fps = decode_video(Path(inputs[0]))
        rgb = Rgb(frames_, fps)
        return Timed(Wish(make_key(Path(inputs[0]).stem), "", views, {"rgb": rgb}, *frames_.shape[:3]), fps)
    named = dict(text.split("=", 1) if "=" in text else (views[0], text) for text in inputs)
    if set(named) != set(views):
        raise OpenUniError(f"--task cond needs an --input for {', '.join(views)}; given: {', '.join(named) or 'none'}")
    info = scored.Info(tasks={"depth": DepthOptions(options["depth_kind"])})
    controls = {view: scored.get_stored(view).read(Path(named[view]), info) for view in views}
    sizes = {view: modalities.get(view).shape(value) for view, value in controls.items()}
    if len(set(sizes.values())) > 1:
        raise OpenUniError(f"controls must agree in frames and size: {sizes}")
    return Timed(Wish(make_key(Path(named[views[0]]).stem), prompt, ("rgb",), controls, *sizes[views[0]]), _FPS)
