"""`unibench render`: procedural scenes with exact truth, as an OpenUni dataset; one Ray task a scene, resumable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import Progress

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Split, split_of
from openuni.shards import columns as columns_
from openuni.shards import layout, verify, writer
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.executors import connect
from openuni_pipelines.engine.run import holding

if TYPE_CHECKING:
    from unibench.standard import Standard

VERSION = 1
"""Raised whenever the truth of a scene changes; columns of two versions never mix."""
_TRUTH = ("depth", "flow", "segmentation", "skeleton", "densepose")
DIGESTS = "truth.json"
"""SHA-256 of the truth of every clip, by key."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A set of scenes: scene k is of the k-th family in turn, from seed `seed` + k. It decides every byte of truth."""

    scenes: int
    frames: int
    size: int
    fps: float
    seed: int
    families: tuple[str, ...]
    rgb: Literal["shaded", "mitsuba"]
    shard_size: int
    purpose: Literal["test", "train"] = "test"

    @classmethod
    def of(cls, wanted: Standard, rgb: Literal["shaded", "mitsuba"], shard_size: int) -> Recipe:
        """The recipe of a standard set; pictures and shards are the user's, for the truth is the same in all."""
        frozen = (wanted.scenes, wanted.frames, wanted.size, wanted.fps, wanted.seed, wanted.families)
        return cls(*frozen, rgb, shard_size)

    @property
    def columns(self) -> dict[str, str]:
        """Columns and their fingerprints."""
        return {"rgb": f"unibench-{self.rgb}-{VERSION}", **dict.fromkeys(_TRUTH, f"unibench-truth-{VERSION}")}

    @property
    def shards(self) -> int:
        return -(-self.scenes // self.shard_size)

    def shard(self, number: int) -> range:
        return range(number * self.shard_size, min((number + 1) * self.shard_size, self.scenes))

    def family(self, scene: int) -> str:
        return self.families[scene % len(self.families)]

    def split(self, scene: int) -> Split:
        """`test`, which no training reads, or for training data one clip in twenty to watch it by."""
        return "test" if self.purpose == "test" else split_of(self.key(scene), val=0.05, test=0.0)

    def key(self, scene: int) -> str:
        """Ascends with the scene, and says how to make it again."""
        return f"{scene:06d}-{self.family(scene)}-{self.seed + scene}"


def render_scene(root: Path, recipe: Recipe, scene: int, run: str, *, preview: bool) -> None:
    """Render one scene and save its sample and its side-car; a sample that is saved stays."""
    from unibench.formats import sidecar
    from unibench.rendering import render
    from unibench.report import previews
    from unibench.scenes.families import Spec

    shard, key = scene // recipe.shard_size, recipe.key(scene)
    if writer.is_saved(root, shard, key, recipe.columns):
        return
    spec = Spec(recipe.family(scene), recipe.seed + scene, recipe.frames, recipe.size, recipe.size, recipe.fps)
    made = render.render_scene(spec, rgb=recipe.rgb)
    for name, data in sidecar.encode(made).items():
        layout.write_atomic(root / sidecar.FOLDER / key / name, data, run)
    values = render.modalities(made.truth)
    annotations: dict[str, Annotation[Any] | str] = {
        "rgb": Annotation(Rgb(made.rgb, recipe.fps, exact=True), 1.0),
        **{name: Annotation(getattr(values, name), 1.0) for name in ("depth", "flow", "segmentation")},
        "skeleton": "nobody is in the scene" if values.skeleton is None else Annotation(values.skeleton, 1.0),
        "densepose": "nobody is in the scene" if values.densepose is None else Annotation(values.densepose, 1.0),
    }
    record = Record(
        key,
        recipe.frames,
        recipe.size,
        recipe.size,
        recipe.fps,
        caption=made.caption,
        subset=made.subset,
        split=recipe.split(scene),
        source="unibench",
        source_id=f"{spec.family}:{spec.seed}",
        video_id=key,
        license="CC0-1.0",
    )
    if preview:
        for name, data in previews.draw(record, annotations, made.truth.normals).items():
            layout.write_atomic(root / previews.FOLDER / name, data, run)
    writer.save_sample(root, shard, record, annotations, recipe.columns, run)


def render_set(
    root: Path,
    recipe: Recipe,
    workers: int | None,
    ray_address: str | None,
    console: Console,
    *,
    preview: bool = False,
) -> None:
    """Make or resume a rendered set. Raises PlanError where `root` holds a set of another recipe.

    With `preview` each scene that is rendered now leaves a contact sheet and a film in `previews/`.
    """
    with holding(root) as run:
        manifest = root / layout.MANIFEST
        configuration = json.loads(json.dumps({"source": "unibench render", **asdict(recipe)}))
        if manifest.is_file():
            found = verify.manifest(root).configuration
            if found != configuration:
                changed = [name for name in configuration if found.get(name) != configuration[name]]
                raise PlanError(f"{root} holds a set of another recipe ({', '.join(changed)}); choose another --out")
        else:
            writer.write_manifest(root, configuration, recipe.columns, recipe.scenes, recipe.shards, run)
        due = [n for n in range(recipe.shards) if not _is_committed(root, n, recipe)]
        with Progress(console=console) as bar:
            task = bar.add_task("scenes", total=sum(len(recipe.shard(n)) for n in due))
            scenes = [scene for n in due for scene in recipe.shard(n)]
            left = {n: set(recipe.shard(n)) for n in due}
            for scene in _work(root, recipe, scenes, run, workers, ray_address, preview):
                stopping.check()
                bar.advance(task)
                number = scene // recipe.shard_size
                left[number].discard(scene)
                if not left[number]:
                    keys = [recipe.key(k) for k in recipe.shard(number)]
                    writer.commit_shard(root, number, keys, recipe.columns, run)
        layout.write_atomic(root / DIGESTS, _digests(root, recipe), run)


def _work(
    root: Path,
    recipe: Recipe,
    scenes: Sequence[int],
    run: str,
    workers: int | None,
    address: str | None,
    preview: bool,
) -> Iterator[int]:
    """Render scenes on Ray (or here, with no workers) and name each when it is done."""
    if workers == 0:
        for scene in scenes:
            render_scene(root, recipe, scene, run, preview=preview)
            yield scene
        return
    import ray

    started = not ray.is_initialized()
    if started and scenes:
        connect(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(render_scene)
        waiting = list(reversed(scenes))
        room = workers or max(1, int(ray.cluster_resources().get("CPU", 1))) if scenes else 0
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < room:
                scene = waiting.pop()
                running[remote.remote(root.absolute(), recipe, scene, run, preview=preview)] = scene
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                scene = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    raise OpenUniError(f"scene {recipe.key(scene)} could not be rendered: {cause}") from error
                yield scene
    finally:
        if started and ray.is_initialized():
            ray.shutdown()


def _is_committed(root: Path, number: int, recipe: Recipe) -> bool:
    for column, fingerprint in recipe.columns.items():
        record = columns_.committed(root, number, column)
        if record is None or record.fingerprint != fingerprint:
            return False
    return True


def _digests(root: Path, recipe: Recipe) -> bytes:
    from unibench.formats import sidecar

    keys = [recipe.key(scene) for scene in range(recipe.scenes)]
    digests = {key: sidecar.digest(root / sidecar.FOLDER / key / "state.json") for key in keys}
    return json.dumps(digests, indent=1).encode() + b"\n"


def check_standard(root: Path, wanted: Standard) -> None:
    """Compare the truth that was rendered with the record of a standard set.

    Raises CorruptDataError naming scenes whose truth differs: numbers scored on them are not comparable.
    """
    from unibench import standard
    from unibench.formats import sidecar

    recipe = Recipe.of(wanted, "shaded", 1)
    frozen = standard.recorded(wanted)
    states = (root / sidecar.FOLDER / recipe.key(scene) / "state.json" for scene in range(recipe.scenes))
    made = {standard.key(spec): sidecar.fingerprint(state) for spec, state in zip(wanted.specs(), states, strict=True)}
    if differ := [key for key in made if made[key] != frozen.get(key)]:
        raise CorruptDataError(
            f"{root}: the truth of {len(differ)} of {len(made)} scenes is not that of the standard set {wanted.name} "
            f"({', '.join(differ[:5])}{'…' if differ[5:] else ''}); it was recorded with {standard.RECORDED_WITH}: "
            "install those, and render it again in an empty folder"
        )


_OF_THE_STANDARD = ("scenes", "frames", "size", "fps", "seed", "families", "purpose")
"""Options that a standard set decides itself."""


@click.command("render")
@click.option(
    "--standard",
    "standard_name",
    type=click.Choice(["estimation", "small", "ci"]),
    help="Render this frozen set, and check that its truth is the recorded one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Dataset folder to make or resume.  [default with --standard: data/unibench, else data/unibench-NAME]",
)
@click.option("--scenes", default=200, show_default=True, type=click.IntRange(min=1), help="Clips.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(2, 1000), help="Frames a clip.")
@click.option("--size", default=256, show_default=True, type=click.IntRange(16, 4096), help="Height and width, pixels.")
@click.option("--fps", default=16.0, show_default=True, help="Frames a second.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Scene k has seed + k.")
@click.option("--families", default="", help="Comma-separated.  [default: all, in turn]")
@click.option("--rgb", default="shaded", show_default=True, type=click.Choice(["shaded", "mitsuba"]), help="Pictures.")
@click.option(
    "--for",
    "purpose",
    default="test",
    show_default=True,
    type=click.Choice(["test", "train"]),
    help="test: to score on; no training reads it. train: to train on; one clip in twenty is for validation.",
)
@click.option(
    "--previews/--no-previews",
    default=True,
    show_default=True,
    help="A contact sheet and a film of each scene in OUT/previews.",
)
@click.option("--shard-size", default=64, show_default=True, type=click.IntRange(min=1), help="Clips a shard.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes; 0: none but this.  [default: one a core]")
@click.option("--ray-address", help="Join this Ray cluster instead of starting Ray here.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and write nothing.")
def render_command(
    standard_name: str | None,
    out: Path | None,
    families: str,
    rgb: Literal["shaded", "mitsuba"],
    shard_size: int,
    previews: bool,
    workers: int | None,
    ray_address: str | None,
    dry_run: bool,
    **numbers: Any,
) -> None:
    """Render procedural scenes with exact truth: the same seed gives the same truth on any number of workers.

    A killed run resumes; `truth.json` has the hash of every clip's truth. These are rendered scenes, not real videos.
    """
    from unibench import standard

    wanted = None if standard_name is None else standard.get(standard_name)
    if wanted is not None:
        _check_frozen(wanted, click.get_current_context())
        recipe, root = Recipe.of(wanted, rgb, shard_size), out or wanted.place
    elif out is not None:
        recipe, root = Recipe(families=_chosen(families), rgb=rgb, shard_size=shard_size, **numbers), out
    else:
        raise OpenUniError("say where with --out, or which frozen set with --standard")
    console = Console()
    if dry_run:
        console.print(f"{recipe.scenes} clips in {recipe.shards} shards: {', '.join(recipe.families)}; {root}")
        return
    render_set(root, recipe, workers, ray_address, console, preview=previews)
    if wanted is not None:
        check_standard(root, wanted)
        console.print(f"the truth of all {wanted.scenes} scenes is that of the standard set {wanted.name}")
    console.print(f"{recipe.scenes} clips, {recipe.shards} shards: {root}")


def _check_frozen(wanted: Standard, context: click.Context) -> None:
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in _OF_THE_STANDARD:
            raise OpenUniError(f"--standard {wanted.name} is frozen; leave out {option.opts[0]}")


def _chosen(families: str) -> tuple[str, ...]:
    """The families named, or all of them. Raises OpenUniError listing the known ones."""
    from unibench.scenes.families import FAMILIES

    chosen = tuple(name.strip() for name in families.split(",") if name.strip()) or tuple(FAMILIES)
    if unknown := [name for name in chosen if name not in FAMILIES]:
        raise OpenUniError(f"unknown families {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    return chosen
