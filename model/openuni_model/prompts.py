"""Prompts of views: how a modality is asked for, and of what (UnityVideo's in-context learner, section 4.2.2).

With `Stage.prompts` every view of every sample reads a text of its own: one of several phrasings, and for a
segmentation often a *target* ("the box on the left") that selects what the view shows. Targets come from the instance
table of the very window that is trained on, so a text and its picture always agree. Only the segmentation has targets.

Example:
    >>> plural("person"), plural("box"), plural("sky scraper")
    ('people', 'boxes', 'sky scrapers')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np

from openuni import modalities
from openuni.modalities.segmentation import Segmentation
from openuni_model.tasks import Stage

T = TypeVar("T")
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
_TARGETED = ("segment {}", "a segmentation map of {}", "show only {}, in flat colours on black")
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
    """What a segmentation shall show: the instances `ids`, called `words`; `classes` are those it names."""

    kind: Kind
    words: str
    ids: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def select(self, value: Segmentation) -> Segmentation:
        """The segmentation with these instances alone; the others are background."""
        kept = tuple(row for row in value.instances if row.id in self.ids)
        return replace(value, ids=np.where(np.isin(value.ids, self.ids), value.ids, np.int32(0)), instances=kept)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text a view reads, and what it shows; None: everything."""

    text: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An instance in a window: its area in pixels and mean place in [0, 1]."""

    id: int
    name: str
    area: int
    x: float
    y: float


def choose(rng: np.random.Generator, view: str, value: Any, stage: Stage) -> Prompt:
    """The prompt of one view of one sample. `value` is that view's window; only a segmentation's is looked at.

    With probability `stage.drop_prompt` the text is empty, and then the view shows everything; with `stage.p_target`
    a segmentation that has targets gets one, first by kind, so that rich scenes do not ask for sides alone. Kinds and
    classes in `stage.held_targets` are never drawn.
    """
    dropped, targeted, kind_u, target_u, phrase_u = rng.random(5)
    if dropped < stage.drop_prompt:
        return Prompt("")
    found = targets(value, stage.held_targets) if isinstance(value, Segmentation) else []
    if found and targeted < stage.p_target:
        kinds = [kind for kind in KINDS if any(target.kind == kind for target in found)]
        kind = _pick(kinds, kind_u)
        target = _pick([target for target in found if target.kind == kind], target_u)
        return Prompt(_pick(_TARGETED, phrase_u).format(target.words), target)
    return Prompt(_pick(phrasings(view), phrase_u))


def _pick(items: Sequence[T], u: float) -> T:
    return items[int(u * len(items))]


def phrasings(view: str) -> tuple[str, ...]:
    """All ways to ask for the whole of a view; the first is the modality's own prompt."""
    return (modalities.get(view).prompt, *_PHRASINGS.get(view, ()))


def targets(value: Segmentation, held: Sequence[str] = ()) -> list[Target]:
    """Everything that can be asked of a segmentation without doubt, in a fixed order; nothing of `held` (kinds and
    class names). Instances of less than 1/500 of the pixels are neither asked for nor counted.
    """
    seen = _seen(value)
    found = [*_classes(seen), *_sides(seen), *_largest(seen), *_pairs(seen)]
    return [t for t in found if t.kind not in held and not set(t.classes) & set(held)]


def _seen(value: Segmentation) -> list[_Seen]:
    _, height, width = value.ids.shape
    seen = []
    for row in value.instances:
        _, y, x = np.nonzero(value.ids == row.id)
        if len(x) >= _LEAST_SHARE * value.ids.size:
            place = (float(x.mean() + 0.5) / width, float(y.mean() + 0.5) / height)
            seen.append(_Seen(row.id, row.class_name, len(x), *place))
    return seen


def _by_class(seen: Sequence[_Seen]) -> dict[str, list[_Seen]]:
    names = sorted({one.name for one in seen})
    return {name: [one for one in seen if one.name == name] for name in names}


def _classes(seen: Sequence[_Seen]) -> list[Target]:
    return [
        Target("class", counted(name, len(those)), tuple(one.id for one in those), (name,))
        for name, those in _by_class(seen).items()
    ]


def _sides(seen: Sequence[_Seen]) -> list[Target]:
    """The outermost of a class of several, and of all objects."""
    groups = {name: those for name, those in _by_class(seen).items() if len(those) > 1}
    found = []
    for name, those in [*groups.items(), ("object", list(seen))]:
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


def _largest(seen: Sequence[_Seen]) -> list[Target]:
    order = sorted(seen, key=lambda one: -one.area)
    if len(order) < 2 or order[0].area < _LARGER * order[1].area:
        return []
    return [Target("largest", "the largest object", (order[0].id,), (order[0].name,))]


def _pairs(seen: Sequence[_Seen]) -> list[Target]:
    """Two instances, each the only one of its class; and 'the two objects' where there are just two."""
    only = [those[0] for those in _by_class(seen).values() if len(those) == 1]
    found = [
        Target("pair", f"the {a.name} and the {b.name}", (a.id, b.id), (a.name, b.name))
        for a, b in combinations(only, 2)
    ]
    if len(seen) == 2:
        found.append(Target("pair", "the two objects", tuple(one.id for one in seen), tuple(one.name for one in seen)))
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
