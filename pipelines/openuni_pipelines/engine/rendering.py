"""Procedural scenes with exact truth, as an OpenUni dataset; one task a scene, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Split, split_of
from openuni.shards import columns as columns_
from openuni.shards import layout, results, verify, writer
from openuni_pipelines.engine.parallel import Parallel, mapping

if TYPE_CHECKING:
    from openuni_pipelines.engine.truth_in_bucket import Held
    from unibench.standard import Standard

VERSION = 1
"""Raised whenever the truth of a scene changes; columns of two versions never mix."""
_TRUTH = ("depth", "flow", "segmentation", "skeleton", "densepose")
DIGESTS = "truth.json"
"""SHA-256 of the truth of every clip, by key."""


@dataclass(frozen=True, slots=True)
class SceneSet:
    """A set of scenes: scene k is of the k-th family in turn, from seed `seed` + k. It decides every byte of truth."""

    scenes: int = field(default=200, metadata={"min": 1})
    """Number of clips."""
    frames: int = field(default=16, metadata={"min": 2, "max": 1000})
    """Frames per clip."""
    size: int = field(default=256, metadata={"min": 16, "max": 4096})
    """Height and width, in pixels."""
    fps: float = 16.0
    """Frames per second."""
    seed: int = field(default=0, metadata={"min": 0})
    """Scene k has seed SEED + k."""
    families: tuple[str, ...] = field(default=(), metadata={"shown": "all, in turn"})
    """Scene families, comma-separated."""
    rgb: Literal["shaded", "mitsuba"] = "shaded"
    """How pictures are made: shaded (fast), or path-traced by Mitsuba."""
    shard_size: int = field(default=64, metadata={"min": 1})
    """Clips per shard."""
    purpose: Literal["test", "train"] = field(default="test", metadata={"flag": "--for"})
    """test: for scoring; training never reads it. train: for training; one clip in twenty is for validation."""

    def __post_init__(self) -> None:
        from unibench.scenes.families import FAMILIES

        if unknown := [name for name in self.families if name not in FAMILIES]:
            raise OpenUniError(f"unknown families {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
        object.__setattr__(self, "families", self.families or tuple(FAMILIES))

    @classmethod
    def of(cls, wanted: Standard, rgb: Literal["shaded", "mitsuba"], shard_size: int) -> SceneSet:
        """The set of a standard; pictures and shards are the user's, for the truth is the same in all."""
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


def render_scene(root: Path, scene_set: SceneSet, scene: int, run: str, *, preview: bool) -> None:
    """Render one scene and save its sample and its side-car; a sample that is saved stays."""
    from unibench.formats import sidecar
    from unibench.rendering import render
    from unibench.report import previews
    from unibench.scenes.families import Spec

    shard, key = scene // scene_set.shard_size, scene_set.key(scene)
    if writer.is_saved(root, shard, key, scene_set.columns):
        return
    spec = Spec(
        scene_set.family(scene), scene_set.seed + scene, scene_set.frames, scene_set.size, scene_set.size, scene_set.fps
    )
    made = render.render_scene(spec, rgb=scene_set.rgb)
    for name, data in render.side_files(made).items():
        layout.write_atomic(root / sidecar.FOLDER / key / name, data, run)
    values = render.modalities(made.truth)
    annotations: dict[str, Annotation[Any] | str] = {
        "rgb": Annotation(Rgb(made.rgb, scene_set.fps, exact=True), 1.0),
        **{name: Annotation(getattr(values, name), 1.0) for name in ("depth", "flow", "segmentation")},
        "skeleton": "nobody is in the scene" if values.skeleton is None else Annotation(values.skeleton, 1.0),
        "densepose": "nobody is in the scene" if values.densepose is None else Annotation(values.densepose, 1.0),
    }
    record = Record(
        key,
        scene_set.frames,
        scene_set.size,
        scene_set.size,
        scene_set.fps,
        caption=made.caption,
        subset=made.subset,
        split=scene_set.split(scene),
        source="unibench",
        source_id=f"{spec.family}:{spec.seed}",
        video_id=key,
        license="CC0-1.0",
    )
    if preview:
        for name, data in previews.draw(record, annotations, made.truth.normals).items():
            layout.write_atomic(root / previews.FOLDER / name, data, run)
    writer.save_sample(root, shard, record, annotations, scene_set.columns, run)


def render_set(
    out: Path | str,
    scene_set: SceneSet,
    parallel: Parallel,
    *,
    staging: Path | None = None,
    preview: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make or resume a rendered set. Raises PlanError where `out` holds a set of another recipe.

    `out` in an object store is staged in a folder, a shard at a time; all `state.json` are there at the end. With
    `preview` each scene that is rendered now leaves a contact sheet and a film in `previews/`. `progress` is told how
    many of how many scenes are done.
    """
    from openuni_pipelines.engine.truth_in_bucket import holding_truth

    with holding_truth(out, staging) as held:
        root, run, far = held.root, held.run, held.bucket
        configuration = json.loads(json.dumps({"source": "unibench render", **asdict(scene_set)}))
        before = far.manifest() if far else None
        if before is None and (root / layout.MANIFEST).is_file():
            before = verify.manifest(root)
        told = {} if before is None else {k: v for k, v in before.configuration.items() if k != layout.NAMING}
        if before is not None and told != configuration:
            changed = [name for name in configuration if told.get(name) != configuration[name]]
            raise PlanError(f"{out} holds a set of another recipe ({', '.join(changed)}); choose another --out")
        if not (root / layout.MANIFEST).is_file():
            writer.write_manifest(root, configuration, scene_set.columns, scene_set.scenes, scene_set.shards, run)
        manifest = verify.manifest(root)
        if far is not None:
            far.put_manifest(configuration, scene_set.columns, scene_set.scenes, scene_set.shards)
        due = [n for n in range(scene_set.shards) if not _is_there(held, n, scene_set)]
        for number in set(range(scene_set.shards)).difference(due):
            results.close_work(root, number)  # a kill may come between a shard's commit and this
        work = [_Scene(root.absolute(), scene_set, scene, run, preview) for n in due for scene in scene_set.shard(n)]
        with mapping(parallel.workers, parallel.ray_address) as mapped:
            for done, scene in enumerate(mapped(_render, work), 1):
                number = scene // scene_set.shard_size
                # Scenes come in order: with its last one a shard is whole.
                if scene == scene_set.shard(number)[-1]:
                    keys = [scene_set.key(k) for k in scene_set.shard(number)]
                    writer.commit_shard(root, number, keys, scene_set.columns, run)
                    if far is not None:
                        far.put_shard(number, keys, scene_set.columns)
                progress(done, len(work))
        if far is not None:
            far.bring_states([scene_set.key(scene) for scene in range(scene_set.scenes)])
        layout.write_atomic(root / DIGESTS, _digests(root, scene_set), run)
        if far is not None and (due or not far.is_finished()):
            far.finish(manifest, DIGESTS)


def _is_there(held: Held, number: int, scene_set: SceneSet) -> bool:
    """Whether a shard is where it is to be; one that is whole in the folder that stages a bucket is put there."""
    if held.bucket is None:
        return _is_committed(held.root, number, scene_set)
    if _is_committed(held.root, number, scene_set):
        held.bucket.put_shard(number, [scene_set.key(k) for k in scene_set.shard(number)], scene_set.columns)
    return held.bucket.has(number, scene_set.columns)


@dataclass(frozen=True, slots=True)
class _Scene:
    root: Path
    scene_set: SceneSet
    scene: int
    run: str
    preview: bool


def _render(task: _Scene) -> int:
    """Render one scene, and name it. Raises OpenUniError naming the scene that cannot be."""
    try:
        render_scene(task.root, task.scene_set, task.scene, task.run, preview=task.preview)
    except OpenUniError as error:
        raise OpenUniError(f"scene {task.scene_set.key(task.scene)} could not be rendered: {error}") from error
    return task.scene


def _is_committed(root: Path, number: int, scene_set: SceneSet) -> bool:
    for column, fingerprint in scene_set.columns.items():
        record = columns_.committed(root, number, column)
        if record is None or record.fingerprint != fingerprint:
            return False
    return True


def _digests(root: Path, scene_set: SceneSet) -> bytes:
    from unibench.formats import sidecar

    keys = [scene_set.key(scene) for scene in range(scene_set.scenes)]
    digests = {key: sidecar.digest(root / sidecar.FOLDER / key / "state.json") for key in keys}
    return json.dumps(digests, indent=1).encode() + b"\n"


def check_standard(root: Path, wanted: Standard) -> None:
    """Compare the truth that was rendered with the record of a standard set.

    Raises CorruptDataError naming scenes whose truth differs: numbers scored on them are not comparable.
    """
    from unibench import standard
    from unibench.formats import sidecar

    scene_set = SceneSet.of(wanted, "shaded", 1)
    frozen = standard.recorded(wanted)
    states = (root / sidecar.FOLDER / scene_set.key(scene) / "state.json" for scene in range(scene_set.scenes))
    made = {standard.key(spec): sidecar.fingerprint(state) for spec, state in zip(wanted.specs(), states, strict=True)}
    if differ := [key for key in made if made[key] != frozen.get(key)]:
        raise CorruptDataError(
            f"{root}: the truth of {len(differ)} of {len(made)} scenes is not that of the standard set {wanted.name} "
            f"({', '.join(differ[:5])}{'…' if differ[5:] else ''}); it was recorded with {standard.RECORDED_WITH}: "
            "install those, and render it again in an empty folder"
        )
