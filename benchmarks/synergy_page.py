"""The numbers and curves of `docs/experiments/synergy.md`, from the finished runs in `results-*.jsonl` beside it.

    python benchmarks/synergy_page.py                                   # the page's marked parts and the curves
    python benchmarks/synergy_page.py --samples OUT/full-prompts-0      # also what that run paints for held targets

Text outside of the marks (`<!-- full -->` … `<!-- end of full -->`) is written by hand and stays.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import synergy
import torch
from synergy import CONTRASTS, HELD, SIZES, Contrast, HeldOut, Line

from openuni import modalities
from openuni.modalities.segmentation import Segmentation
from openuni_model import checkpoint
from openuni_model.prompts import Target, targets
from openuni_model.texts import open_texts

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "experiments" / "synergy.md"

PAPER: Mapping[str, str] = {
    "depth-views": "Table 2, only depth → all: 98.13 → 98.01 subject, 69.09 → 69.18 imaging",
    "flow-views": "Table 2, only flow → all: 97.82 → 97.97 subject, 67.34 → 69.36 imaging",
    "depth-tasks": "Table 3 (no estimation alone), only joint → all: 98.01 → 97.94 subject, 99.44 → 99.48 motion",
    "flow-tasks": "as above; only control → all: 96.53 → 96.53 subject, 99.28 → 99.38 motion",
    "switcher": "Table 4, in-context → both: 97.92 → 98.31 subject, 99.42 → 99.54 motion",
    "switcher-alone": "Table 4, neither → switcher: 96.51 → 97.94 subject, 99.30 → 99.48 motion",
    "in-context": "Table 4, switcher → both: 97.94 → 98.31 subject, 99.48 → 99.54 motion",
    "in-context-alone": "Table 4, neither → in-context: 96.51 → 97.92 subject, 99.30 → 99.42 motion",
    "rgb-views": "Table 2, no views → all: 96.51 → 97.97 subject, 64.99 → 69.36 imaging (flow generated beside)",
    "rgb-views-samples": "the same",
    "target-fixed": "Figure 7: pictures, no number",
    "target-wrong": "not in the paper",
}
"""What the paper has for a claim: VBench scores in %, more is better, of generated RGB."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, metavar="RUN", help="the folder of a run of `prompts`")
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    text = PAGE.read_text()
    for size in ("pilot", "medium", "full"):
        text = replaced(text, size, section(size, pairs(size)))
        for name, (mine, theirs) in pairs(size).items():
            synergy.draw_curves(CONTRASTS[name], mine, theirs, DOCS / "images" / f"synergy_{size}_{name}.png")
    PAGE.write_text(text)
    if a.samples:
        print(json.dumps(paint(a.samples, DOCS / "images" / "synergy_targets.png")))


Pair = tuple[list[Line], list[Line]]


def pairs(size: str) -> dict[str, Pair]:
    """The runs of both arms of each contrast, of the seeds that both have; contrasts without are left out."""
    lines = synergy.read(PAGE.parent / f"results-{size}.jsonl")
    found = {}
    for name, contrast in CONTRASTS.items():
        read = [
            {seed: line for (arm, seed), line in lines.items() if arm == which and measured(line, measure)}
            for which, measure in ((contrast.a, contrast.measure), (contrast.b, contrast.other))
        ]
        if seeds := sorted(read[0].keys() & read[1].keys()):
            found[name] = ([read[0][seed] for seed in seeds], [read[1][seed] for seed in seeds])
    return found


def measured(line: Line, measure: str) -> bool:
    return any(measure in point["clips"] for point in line["points"])


def replaced(text: str, name: str, section: str) -> str:
    """The text with what stands between the marks of `name` exchanged."""
    before, rest = text.split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- end of {name} -->\n")
    return f"{before}<!-- {name} -->\n{section}<!-- end of {name} -->\n{after}"


def section(size: str, found: Mapping[str, Pair]) -> str:
    judged = {name: synergy.judge(CONTRASTS[name], *pair) for name, pair in found.items()}
    parts = [overview(size, judged)] if size == "medium" else []
    parts += [details(size, name, judged[name]) for name in found]
    return "\n".join(parts)


def overview(size: str, judged: Mapping[str, Mapping[str, Any]]) -> str:
    """Every registered contrast beside the paper's number."""
    rows = [
        "Effect: the ratio of errors, a over b; with a sign the difference of IoU. In brackets its 95 % interval.",
        "",
        "| contrast: claim | the paper | seeds | effect at equal updates | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, contrast in CONTRASTS.items():
        paper = PAPER.get(name) or "as of depth; the paper does not score it"
        if name not in judged:
            rows.append(f"| {name}: {contrast.claim} | {paper} | 0 | no run yet | none |")
            continue
        said = judged[name]
        effect = with_interval(said["equal updates"], contrast)
        rows.append(f"| {name}: {contrast.claim} | {paper} | {said['seeds']} | {effect} | {word(size, said)} |")
    return "\n".join(rows) + "\n"


def details(size: str, name: str, said: Mapping[str, Any]) -> str:
    """Both budgets of a contrast that has runs, its power and its curves."""
    contrast, seeds = CONTRASTS[name], said["seeds"]
    a, b = labels(contrast)
    effect = "difference" if contrast.zero_shot else "ratio"
    lines = [
        f"### {name}",
        f"| budget | {a} | {b} | {effect} (95 % interval) | scatter of seeds | least effect that {seeds} seeds show |",
        "|---|---|---|---|---|---|",
    ]
    for budget in ("equal updates",) if contrast.a == contrast.b else ("equal updates", "equal flops"):
        at = said[budget]
        scatter = at.get("scatter of seeds")
        lines.append(
            f"| {budget.replace('flops', 'FLOPs')} | {number(at['a'])} | {number(at['b'])} | "
            f"{with_interval(at, contrast)} | {number(scatter)} | {least(scatter, seeds, contrast)} |"
        )
    lines += ["", f"Verdict: {word(size, said)}."]
    if (speed := said.get("flops to the single arm's final value")) is not None:
        lines[-1] += f" Arm a reaches b's final value with {speed:.2f} of b's FLOPs."
    return "\n".join([*lines, "", f"![{name}: the measure over FLOPs](../images/synergy_{size}_{name}.png)", ""])


def labels(contrast: Contrast) -> tuple[str, str]:
    """What tells the two apart: arm and measure."""
    return f"{contrast.a}: {contrast.measure}", f"{contrast.b}: {contrast.other}"


def word(size: str, said: Mapping[str, Any]) -> str:
    """The verdict of both budgets, or why there is none."""
    if said["seeds"] < SIZES[size].seeds:
        return f"none before {SIZES[size].seeds} seeds"
    words = dict.fromkeys((said["equal updates"]["verdict"], said["equal flops"]["verdict"]))
    return " (equal updates), ".join(words) + (" (equal FLOPs)" if len(words) > 1 else "")


def with_interval(at: Mapping[str, Any], contrast: Contrast) -> str:
    low, high = at["interval"]
    sign = "+" if contrast.zero_shot else ""
    return f"{at['effect']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def least(scatter: float | None, seeds: int, contrast: Contrast) -> str:
    """With a power of 80 %, two-sided 5 %, normal approximation."""
    if scatter is None:
        return "–"
    reach = 2.8 * scatter / math.sqrt(seeds)
    return f"+{reach:.3f}" if contrast.zero_shot else f"ratio {math.exp(-reach):.2f}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A way to ask for a part of each held-out clip: the texts (None: the view's own prompt), and what is wanted."""

    name: str
    texts: list[str | None]
    wanted: list[Target | None]


def paint(run: Path, picture: Path) -> dict[str, float]:
    """Picture held targets as a trained model paints them; the mean IoU of each way to ask.

    A target of the trained kinds (the first of each clip) tells whether the model paints targets at all, and what it
    painted for the next clip's target whether it looks at the clip or only knows where such things are.
    """
    model, held = checkpoint.load_trained(run), synergy.held_out(run.parent / "data-full")
    model.eval()
    trained = [next(iter(targets(sample.segmentation, HELD)), None) for sample in held.clips]
    ways = [
        Asked("own prompt", prompts_of(held.targets), held.targets),
        Asked("fixed", [None for _ in held.clips], held.targets),
        Asked("wrong", held.others, held.targets),
        Asked("trained", prompts_of(trained), trained),
    ]
    embed = open_texts(model.config)
    made = [synergy.estimates(model, held.clips, "segmentation", embed, SIZES["full"], way.texts) for way in ways]
    chosen = [n for n, other in enumerate(held.others) if other is not None][:: len(held.clips) // 10][:8]
    rows = []
    for n in chosen:
        sample, target = held.clips[n], held.targets[n]
        assert target is not None  # it has another prompt
        cells = [sample.rgb.frames[FRAME], shown(target.select(sample.segmentation))]
        rows.append(cells + [shown(values[n]) for values in made[:3]] + [shown(sample.segmentation)])
        print(sample.key, "|", target.words, "|", held.others[n])
    cv2.imwrite(str(picture), sheet(["rgb", "wanted", "own prompt", "fixed", "wrong", "all"], rows)[..., ::-1])
    scores = {way.name: mean_iou_of(values, way, held) for way, values in zip(ways, made, strict=True)}
    asked = [n for n, target in enumerate(held.targets) if target]
    following = dict(zip(asked, [*asked[1:], *asked[:1]], strict=True))
    another = [made[0][following.get(n, n)] for n in range(len(held.clips))]
    return {**scores, "own prompt, another clip": mean_iou_of(another, ways[0], held)}


FRAME, CELL = 3, 96


def prompts_of(wanted: Sequence[Target | None]) -> list[str | None]:
    return [None if target is None else f"segment {target.words}" for target in wanted]


def mean_iou_of(made: Sequence[Segmentation], way: Asked, held: HeldOut) -> float:
    asked = HeldOut(held.clips, way.wanted, held.others)
    texts = [text or "own" for text in way.texts] if way.name == "fixed" else way.texts
    return float(np.nanmean(synergy.painted_iou(made, texts, asked)))


def shown(value: Segmentation) -> npt.NDArray[np.uint8]:
    cell: npt.NDArray[np.uint8] = modalities.get("segmentation").show(value)[FRAME]
    return cell


def sheet(names: Sequence[str], rows: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> npt.NDArray[np.uint8]:
    """A row for every clip, a column for every name."""
    head = np.full((20, (CELL + 4) * len(names), 3), 255, np.uint8)
    for i, name in enumerate(names):
        cv2.putText(head, name, (i * (CELL + 4) + 4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)
    lines = [
        np.hstack(
            [
                np.pad(cv2.resize(cell, (CELL, CELL), interpolation=cv2.INTER_NEAREST), ((2, 2), (2, 2), (0, 0)))
                for cell in row
            ]
        )
        for row in rows
    ]
    return np.vstack([head, *lines]).astype(np.uint8)


if __name__ == "__main__":
    main()
