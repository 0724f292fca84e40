"""The three training tasks and the curriculum (UnityVideo, sections 4.2.1 and 4.2.3).

Every training sample draws its own task, views, times and dropouts, so that one batch mixes them all, from a
generator that depends on (seed, position) alone: nothing about randomness has to be saved to resume exactly.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from openuni.errors import OpenUniError
from openuni.storage import DOCUMENT, LocalStore
from openuni_model.dit import CONDITION, GENERATE
from openuni_model.flow import logit_normal

Task = Literal["cond", "est", "joint"]
Purpose = Literal["train", "validate", "sample", "prompt"]
TASKS: tuple[Task, ...] = ("cond", "est", "joint")


class StageError(OpenUniError):
    """A curriculum stage that cannot be trained."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the curriculum: which views, which clips, which tasks, how long.

    `subsets` empty: clips of every subset. `p_more`: each further view joins with this probability, so that several
    controls at once are trained. `p_equal`: in joint generation all views share one time, else each has its own.
    `drop_text` replaces the caption by the empty one, `drop_control` leaves the clean streams out; guidance needs both.
    `p_alone` of the samples train RGB alone without a caption, what guidance starts from, besides those that come to
    it by these drop-outs (`shares`).

    `prompts` gives each view of each sample a prompt of its own (see `prompts.py`); without, for ablation, it is
    constant a modality. With `p_target` a view that tells instances apart shows a target, `drop_prompt` leaves the
    prompt empty, and `held_targets` (kinds of target and class names) are never asked for, to be tried on a trained
    model.
    """

    name: str
    modalities: tuple[str, ...]
    subsets: tuple[str, ...] = ()
    steps: int = 16_000
    p_cond: float = 0.2
    p_est: float = 0.3
    p_joint: float = 0.5
    p_more: float = 0.1
    p_equal: float = 0.5
    drop_text: float = 0.1
    drop_control: float = 0.1
    p_alone: float = 0.02
    prompts: bool = True
    p_target: float = 0.5
    drop_prompt: float = 0.1
    held_targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        chances = (self.p_cond, self.p_est, self.p_joint)
        if min(chances) < 0 or abs(sum(chances) - 1) > 1e-6:
            raise StageError(f"stage {self.name}: p_cond, p_est and p_joint are {chances}; they must sum to 1")
        dropped = (self.drop_text, self.drop_control, self.drop_prompt)
        others = (self.p_more, self.p_equal, self.p_alone, self.p_target, *dropped)
        if not all(0 <= p <= 1 for p in others) or self.steps <= 0:
            raise StageError(f"stage {self.name}: probabilities lie in 0…1 and steps above 0")
        if len(set(self.modalities)) != len(self.modalities):
            raise StageError(f"stage {self.name}: modalities {', '.join(self.modalities)}: name each only once")
        if "rgb" in self.modalities:
            raise StageError(f"stage {self.name}: list the views besides RGB; RGB is always there")


STAGES: Mapping[str, Stage] = {
    "1": Stage("1", ("flow", "depth", "densepose"), ("single_person",), steps=16_000),
    "2": Stage("2", ("flow", "depth", "densepose", "segmentation", "skeleton"), steps=40_000, p_more=0.2),
}
"""The paper's curriculum: first pixel-aligned views of single people, then all five views of everything."""


def load_stage(name: str) -> Stage:
    """A stage by name, or from a TOML file of Stage's fields. Raises StageError naming what is wrong."""
    if name in STAGES:
        return STAGES[name]
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise StageError(f"no stage {name!r}: give {', '.join(STAGES)} or a .toml file of its fields")
    try:
        values: dict[str, Any] = tomllib.loads(LocalStore(path.parent).read(path.name, at_most=DOCUMENT).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: {error}") from error
    known = {field.name: field for field in fields(Stage)}
    if unknown := sorted(set(values) - set(known)):
        raise StageError(f"{path}: unknown {', '.join(unknown)}; a stage has {', '.join(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return Stage(**{"name": path.stem, **values})
    except TypeError as error:
        raise StageError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Shares:
    """How often a stage trains what it trains rarely, as shares of its samples."""

    alone: float
    """RGB alone without a caption: v(∅), where guidance starts."""
    views: tuple[float, ...]
    """By the number of views besides RGB at once, from none to all."""


def shares(stage: Stage) -> Shares:
    """The shares that `draw` comes to over clips that have every view of the stage.

    Example:
        >>> found = shares(STAGES["2"])
        >>> round(found.alone, 4), [round(share, 4) for share in found.views]
        (0.022, [0.0396, 0.3934, 0.3934, 0.1475, 0.0246, 0.0015])
    """
    others = len(stage.modalities) - 1
    uncontrolled = stage.p_cond * stage.drop_control if stage.modalities else 1.0
    drawn = [comb(others, k) * stage.p_more**k * (1 - stage.p_more) ** (others - k) for k in range(others + 1)]
    rest = 1 - stage.p_alone
    return Shares(
        alone=stage.p_alone + rest * uncontrolled * stage.drop_text,
        views=(stage.p_alone + rest * uncontrolled, *(rest * (1 - uncontrolled) * share for share in drawn)),
    )


@dataclass(frozen=True, slots=True)
class Draw:
    """What one sample trains: its task, and for each of its streams the view, the role and the time (0: clean)."""

    task: Task
    views: tuple[str, ...]
    roles: tuple[int, ...]
    times: tuple[float, ...]
    caption: bool


def rng_of(seed: int, purpose: Purpose, number: int) -> np.random.Generator:
    """The random numbers of one sample: a counter-based Philox stream of its own for every (seed, purpose, number).

    In training `number` is the position in the training order, counted over all epochs.
    """
    key = [seed, ("train", "validate", "sample", "prompt").index(purpose)]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, number]))


def draw(rng: np.random.Generator, present: Sequence[str], stage: Stage, shift: float) -> Draw:
    """Route one sample. `present` are the views that it has; a clip with none of the stage's trains text-to-video.

    cond: RGB at τ, views clean. est: RGB clean, views at τ, no caption (the paper's u(V_m | V_r)). joint: all noisy.
    """
    allowed = [view for view in stage.modalities if view in present]
    task = TASKS[int(rng.choice(3, p=(stage.p_cond, stage.p_est, stage.p_joint)))]
    order = [allowed[int(i)] for i in rng.permutation(len(allowed))]
    more = rng.random(len(order)) < stage.p_more
    views = [view for i, view in enumerate(order) if i == 0 or more[i]]
    equal, keeps_caption = rng.random() < stage.p_equal, rng.random() >= stage.drop_text
    keeps_control = rng.random() >= stage.drop_control
    times = logit_normal(torch.from_numpy(rng.standard_normal(1 + len(allowed))), shift).tolist()

    if not views:
        task = "joint"
    # The last number, and only where it is asked for: without it noise stays as it was.
    if stage.p_alone and rng.random() < stage.p_alone:
        return Draw("cond" if views else "joint", ("rgb",), (GENERATE,), (times[0],), caption=False)
    streams = ["rgb", *views]
    clean = {"cond": views, "est": ["rgb"], "joint": []}[task]
    if not keeps_control:
        streams = [view for view in streams if view not in clean]
    own = dict(zip(["rgb", *views], times, strict=False))
    shared = task != "joint" or equal
    return Draw(
        task=task,
        views=tuple(streams),
        roles=tuple(CONDITION if view in clean else GENERATE for view in streams),
        times=tuple(0.0 if view in clean else times[0] if shared else own[view] for view in streams),
        caption=keeps_caption and task != "est",
    )
