"""Prompts of views: how a modality is asked for, and of what (UnityVideo's in-context learner, section 4.2.2).

With `Stage.prompts` every view of every sample reads a text of its own: one of several phrasings, and for a view that
tells instances apart often a *target* ("the box on the left", "the largest person") that selects what the view shows.
Targets come from the very window that is trained on, so a text and its picture always agree: from the instance table of
a segmentation, the people of skeletons and of DensePose. Depth and flow show the whole scene and have none.

Example:
    >>> plural("person"), plural("box"), plural("sky scraper")
    ('people', 'boxes', 'sky scrapers')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from openuni import modalities
from openuni.modalities.densepose import DensePose
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni_model.tasks import Stage

T = TypeVar("T")
Targets = Segmentation | Skeleton | DensePose
"""Values of views that tell instances apart."""
Targeted = TypeVar("Targeted", Segmentation, Skeleton, DensePose)
Kind = Literal["class", "side", "largest", "pair"]
KINDS: tuple[Kind, ...] = ("class", "side", "largest", "pair")
"""Every instance of a class; the outermost on a side; the largest; two that are told apart by their classes."""

_PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "depth": ("a depth map of the whole scene", "how far each point is, near bright and far dark", "estimate depth"),
    "flow": ("the optical flow of the whole scene", "how every pixel moves to the next frame", "estimate motion"),
    "segmentation": ("segment every object", "a segmentation map of the whole scene", "each object in its own colour"),
    "skeleton": ("the skeletons of all people", "joints and limbs of each person", "estimate poses"),
    "densepose": ("the body surface of all people", "which part of the body each pixel shows", "estimate body maps"),
}
"""Besides the modality's own prompt, which a fixed-prompt model reads."""
_TARGETED: Mapping[str, tuple[str, ...]] = {
    "segmentation": ("segment {}", "a segmentation map of {}", "show only {}, in flat colours on black"),
    "skeleton": ("a skeleton map of {}", "joints and limbs of {}", "estimate poses: {} alone"),
    "densepose": ("a body surface map of {}", "which part of the body each pixel of {} shows", "body map: {} alone"),
}
_COUNTS = ("no", "one", "two", "three", "four", "five")
_IRREGULAR = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice",
              "sheep": "sheep", "knife": "knives", "bus": "buses"}  # fmt: skip
_LEAST_SHARE = 1 / 500
"""Share of the window's pixels below which an instance is too small to be asked for."""
_APART = 0.1
"""By how much of the frame's side the outermost centre must lie beyond the next, to be called the one on that side."""
_LARGER = 1.5


@dataclass(frozen=True, slots=True)
class Target:
    """What a view shall show: the instances `ids` (people: by `track_ids`, or their number in DensePose), called
    `words`; `classes` are those it names.
    """

    kind: Kind
    words: str
    ids: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def select(self, value: Targeted) -> Targeted:
        """The value with these instances alone; the others are background."""
        selected: Targeted = _select(value, self.ids)
        return selected


@singledispatch
def _select(value: Any, ids: tuple[int, ...]) -> Any:
    raise TypeError(f"{type(value).__name__} does not tell instances apart")


@_select.register
def _(value: Segmentation, ids: tuple[int, ...]) -> Segmentation:
    kept = tuple(row for row in value.instances if row.id in ids)
    return replace(value, ids=np.where(np.isin(value.ids, ids), value.ids, np.int32(0)), instances=kept)


@_select.register
def _(value: Skeleton, ids: tuple[int, ...]) -> Skeleton:
    kept = np.isin(value.track_ids, ids)

    def of(array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        return None if array is None else array[:, kept]

    return replace(
        value,
        keypoints=value.keypoints[:, kept],
        boxes=value.boxes[:, kept],
        track_ids=value.track_ids[kept],
        crowds=None if value.crowds is None else value.crowds[kept],
        world=of(value.world),
        areas=of(value.areas),
        scores=of(value.scores),
    )


@_select.register
def _(value: DensePose, ids: tuple[int, ...]) -> DensePose:
    return replace(value, values=np.where(np.isin(value.values[..., 3:], ids), value.values, np.uint8(0)))


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text a view reads, and what it shows; None: everything."""

    text: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An instance in a window: its area in pixels over all frames (a skeleton's: of its boxes) and mean place in
    [0, 1].
    """

    id: int
    name: str
    area: int
    x: float
    y: float


def choose(rng: np.random.Generator, view: str, value: Any, stage: Stage) -> Prompt:
    """The prompt of one view of one sample. `value` is that view's window, None for one that has no targets.

    With probability `stage.drop_prompt` the text is empty, and then the view shows everything; with `stage.p_target`
    a view that has targets gets one, first by kind, so that rich scenes do not ask for sides alone. Kinds and
    classes in `stage.held_targets` are never drawn.
    """
    dropped, targeted, kind_u, target_u, phrase_u = rng.random(5)
    if dropped < stage.drop_prompt:
        return Prompt("")
    found = [] if value is None else targets(value, stage.held_targets)
    if found and targeted < stage.p_target:
        kinds = [kind for kind in KINDS if any(target.kind == kind for target in found)]
        kind = _pick(kinds, kind_u)
        target = _pick([target for target in found if target.kind == kind], target_u)
        return Prompt(_pick(_TARGETED[view], phrase_u).format(target.words), target)
    return Prompt(_pick(phrasings(view), phrase_u))


def _pick(items: Sequence[T], u: float) -> T:
    return items[int(u * len(items))]


def phrasings(view: str) -> tuple[str, ...]:
    """All ways to ask for the whole of a view; the first is the modality's own prompt."""
    return (modalities.get(view).prompt, *_PHRASINGS.get(view, ()))


def has_targets(view: str) -> bool:
    """Whether a view tells instances apart, so that some can be asked for."""
    return view in _TARGETED


def targets(value: Targets, held: Sequence[str] = ()) -> list[Target]:
    """Everything that can be asked of a view without doubt, in a fixed order; nothing of `held` (kinds and class
    names). Instances of less than 1/500 of the pixels are neither asked for nor counted.
    """
    seen: list[_Seen] = _seen(value)
    thing = "object" if isinstance(value, Segmentation) else "person"
    found = [*_classes(seen), *_sides(seen, thing), *_largest(seen, thing), *_pairs(seen, thing)]
    return [t for t in dict.fromkeys(found) if t.kind not in held and not set(t.classes) & set(held)]


@singledispatch
def _seen(value: Any) -> list[_Seen]:
    raise TypeError(f"{type(value).__name__} does not tell instances apart")


@_seen.register
def _(value: Segmentation) -> list[_Seen]:
    masks = [_seen_mask(row.id, row.class_name, value.ids == row.id) for row in value.instances]
    return [one for one in masks if one]


@_seen.register
def _(value: DensePose) -> list[_Seen]:
    person = value.values[..., 3]
    masks = [_seen_mask(int(i), "person", person == i) for i in np.unique(person) if i]
    return [one for one in masks if one]


def _seen_mask(id: int, name: str, mask: npt.NDArray[np.bool_]) -> _Seen | None:
    _, height, width = mask.shape
    _, y, x = np.nonzero(mask)
    if len(x) < _LEAST_SHARE * mask.size:
        return None
    return _Seen(id, name, len(x), float(x.mean() + 0.5) / width, float(y.mean() + 0.5) / height)


@_seen.register
def _(value: Skeleton) -> list[_Seen]:
    seen = []
    for p, id in enumerate(value.track_ids):
        crowd = value.crowds is not None and value.crowds[p]
        corners = value.boxes[~np.isnan(value.boxes[:, p, 0]), p].astype(np.float64)
        area = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).sum()
        if crowd or area < _LEAST_SHARE * len(value.boxes) * value.height * value.width:
            continue
        x, y = (corners[:, :2] + corners[:, 2:]).mean(axis=0) / 2
        seen.append(_Seen(int(id), "person", round(area), float(x / value.width), float(y / value.height)))
    return seen


def _by_class(seen: Sequence[_Seen]) -> dict[str, list[_Seen]]:
    names = sorted({one.name for one in seen})
    return {name: [one for one in seen if one.name == name] for name in names}


def _classes(seen: Sequence[_Seen]) -> list[Target]:
    return [
        Target("class", counted(name, len(those)), tuple(one.id for one in those), (name,))
        for name, those in _by_class(seen).items()
    ]


def _sides(seen: Sequence[_Seen], thing: str) -> list[Target]:
    """The outermost of a class of several, and of all objects."""
    groups = {name: those for name, those in _by_class(seen).items() if len(those) > 1}
    found = []
    for name, those in [*groups.items(), (thing, list(seen))]:
        for side, places in (
            ("on the left", [one.x for one in those]),
            ("on the right", [-one.x for one in those]),
            ("at the top", [one.y for one in those]),
            ("at the bottom", [-one.y for one in those]),
        ):
            order = np.argsort(places, kind="stable")
            if len(order) > 1 and places[order[1]] - places[order[0]] >= _APART:
                chosen = those[int(order[0])]
                found.append(Target("side", f"the {name} {side}", (chosen.id,), (chosen.name,)))
    return found


def _largest(seen: Sequence[_Seen], thing: str) -> list[Target]:
    order = sorted(seen, key=lambda one: -one.area)
    if len(order) < 2 or order[0].area < _LARGER * order[1].area:
        return []
    return [Target("largest", f"the largest {thing}", (order[0].id,), (order[0].name,))]


def _pairs(seen: Sequence[_Seen], thing: str) -> list[Target]:
    """Two instances, each the only one of its class; and 'the two objects' where there are just two."""
    only = [those[0] for those in _by_class(seen).values() if len(those) == 1]
    found = [
        Target("pair", f"the {a.name} and the {b.name}", (a.id, b.id), (a.name, b.name))
        for a, b in combinations(only, 2)
    ]
    if len(seen) == 2:
        ids, names = tuple(one.id for one in seen), tuple(one.name for one in seen)
        found.append(Target("pair", f"the two {plural(thing)}", ids, names))
    return found


def counted(name: str, count: int) -> str:
    """Example:
    >>> counted("box", 1), counted("person", 2), counted("ball", 9)
    ('the box', 'the two people', 'all balls')
    """
    if count == 1:
        return f"the {name}"
    return f"the {_COUNTS[count]} {plural(name)}" if count < len(_COUNTS) else f"all {plural(name)}"


def plural(name: str) -> str:
    """The plural of a class name, by its last word."""
    first, space, last = name.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return first + space + last
