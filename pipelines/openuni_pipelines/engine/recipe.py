"""What a build makes: stages that need each other, from the stored clip over the experts to committed columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property

from pydantic import TypeAdapter, ValidationError

from openuni import experts
from openuni.errors import CorruptDataError, PlanError
from openuni.experts import Expert, sets
from openuni.shards import layout
from openuni.shards.layout import Manifest
from openuni.video import Normalisation

RGB = "rgb"
"""The column that all others annotate, and the stage that makes it."""

KEEP_DOUBTFUL = "keep_doubtful"
"""In a manifest's configuration, where no floor was applied to the columns."""

COMPACT = "compact"
"""In a manifest's configuration, where what experts predict is stored compactly; datasets of older versions go on as
they began."""


class Kind(Enum):
    """What a worker does in a stage."""

    NORMALISE = "normalise"
    ANNOTATE = "annotate"
    STORED = "stored"
    """A column that is committed already and that an expert reads; nothing is made."""
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a build. Of each clip it makes what `column` holds, or packs that column of a whole shard.

    `needs` names the stages that come before it. An expert that only finds things for others fills a pseudo-column of
    its own name, which is never packed. `optional` are those of its needs that a clip may lack.
    """

    name: str
    kind: Kind
    column: str
    fingerprint: str
    needs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Stages in the order they depend on each other, and those whose result a clip must have to stay."""

    stages: tuple[Stage, ...]
    """What is made of every clip, RGB first."""
    commits: tuple[Stage, ...]
    """One a column. All need RGB's, which settles the keys of a shard."""
    required: tuple[str, ...]
    keep_doubtful: bool = False
    """Whether annotations below their expert's floor stay."""

    def __getitem__(self, name: str) -> Stage:
        return self._by_name[name]

    @property
    def experts(self) -> tuple[type[Expert], ...]:
        return tuple(experts.get(stage.name) for stage in self.stages if stage.kind is Kind.ANNOTATE)

    @property
    def columns(self) -> dict[str, str]:
        """Fingerprint by column, RGB first."""
        return {commit.column: commit.fingerprint for commit in self.commits}

    def maker(self, column: str) -> Stage:
        """The stage whose results become `column`."""
        return next(stage for stage in self.stages if stage.column == column)

    def makes(self, column: str) -> bool:
        """Whether any stage fills `column`."""
        return any(stage.column == column for stage in self.stages)

    def upstream(self, name: str) -> set[str]:
        """The stage `name` and all that it needs, directly or not."""
        return {name}.union(*(self.upstream(needed) for needed in self[name].needs))

    @cached_property
    def _by_name(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in (*self.stages, *self.commits)}


def recipe(
    names: Sequence[str],
    require: Iterable[str],
    rgb: str,
    stored: Mapping[str, str] | None = None,
    *,
    keep_doubtful: bool = False,
) -> Recipe:
    """Stages for the experts `names` and all that they build on; `rgb` is the fingerprint of the stored clips.

    `stored` gives the fingerprint of each column that is committed: experts read those that none of `names` makes.

    Raises OpenUniError on unknown names, where two experts make the same modality or none makes one of `require`, and
    where experts read each other's columns.
    """
    ordered: dict[str, type[Expert]] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            expert = experts.get(name)
            for needed in expert.requires:
                visit(needed)
            ordered[name] = expert

    for name in sets.completed(names, stored or ()):
        visit(name)
    makers = {RGB: RGB}
    for expert in ordered.values():
        if expert.modality is not None and (other := makers.setdefault(expert.modality, expert.name)) != expert.name:
            raise PlanError(f"experts {other} and {expert.name} both make {expert.modality}; a dataset has one of each")
    wanted = {RGB, *require}
    if unknown := wanted - set(makers):
        raise PlanError(f"--require {', '.join(sorted(unknown))}: no chosen expert makes that modality")
    stages = {RGB: Stage(RGB, Kind.NORMALISE, RGB, rgb)}
    begun: set[str] = set()

    def add(name: str) -> None:
        """The stage of an expert, after those that it needs."""
        if name in begun:
            raise PlanError(f"expert {name} reads a column that is made from its own")
        begun.add(name)
        expert = ordered[name]
        read = []
        for modality in expert.reads:
            if modality not in makers and modality in (stored or {}):
                makers[modality] = modality
                stages[modality] = Stage(modality, Kind.STORED, modality, (stored or {})[modality], (RGB,))
            if modality in makers:
                read.append(makers[modality])
        for needed in (*expert.requires, *read):
            if needed not in stages:
                add(needed)
        columns = {stages[maker].column: stages[maker].fingerprint for maker in read}
        stages[name] = Stage(
            name,
            Kind.ANNOTATE,
            expert.modality or name,
            expert.fingerprint(columns, keep_doubtful=keep_doubtful),
            tuple(dict.fromkeys((RGB, *expert.requires, *read))),
            (*expert.optional, *(maker for maker in read if maker not in expert.requires)),
        )

    for name in sorted(ordered, key=lambda name: bool(ordered[name].reads)):  # those that read nothing as they were
        if name not in stages:
            add(name)
    return Recipe(
        stages=tuple(stages.values()),
        commits=tuple(_commit(column, stages[maker]) for column, maker in makers.items()),
        required=tuple(name for name in stages if name in {makers[column] for column in wanted}),
        keep_doubtful=keep_doubtful,
    )


def _commit(column: str, maker: Stage) -> Stage:
    before = () if column == RGB else (f"commit {RGB}",)
    return Stage(f"commit {column}", Kind.COMMIT, column, maker.fingerprint, (maker.name, *before))


def stored_normalisation(manifest: Manifest) -> Normalisation:
    """How the clips of a dataset are normalised, also of one that was begun before all of it was written down.

    Raises CorruptDataError where it cannot be that.
    """
    told = manifest.configuration.get("normalisation", {})
    try:
        # Pulldown is undone since --crf is an option, and left in by what was begun before.
        return TypeAdapter(Normalisation).validate_python({"undo_pulldown": "crf" in told, **told})
    except (ValidationError, TypeError) as error:
        raise CorruptDataError(f"{layout.MANIFEST}: no clip can be normalised by {told!r}") from error


def rgb_fingerprint(normalisation: Normalisation) -> str:
    """RGB's version: how clips are normalised. 2: pulldown is undone."""
    return f"rgb-2-{layout.digest(repr(sorted(asdict(normalisation).items())).encode())[:8]}"
