"""Pairs of alike clips that the graph of approximate neighbours finds, of those that comparing all clips finds:
`python benchmarks/neighbours.py 24000`

Features are made up: scenes in random directions, clips around them, and copies of a tenth of the clips with cosines
of .80 to .99. Where scenes are loose, clips are alike only by being copies; in tight ones, as where many clips are cut
from one video, each clip has a hundred neighbours nearly as near as its copy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import features

COSINE = 0.85
SCENES = {"no scenes": (0, 0.0), "loose scenes of 100 clips": (100, 0.5), "tight scenes of 100 clips": (100, 0.9)}
"""Clips of a scene, and their cosine with its middle."""


def main(clips: int) -> None:
    print(f"{'':28}{'pairs':>8} {'found':>7} {'copies found':>13} {'wrong':>6} {'exact s':>8} {'graph s':>8}")
    for name, (size, within) in SCENES.items():
        codes, copies = make(clips, size, within)
        exact, exact_seconds = timed(features._compared, codes)
        graph, graph_seconds = timed(features._asked, codes)
        both, planted = exact & graph, exact & copies
        print(
            f"{name:28}{len(exact):8,} {len(both) / len(exact):7.4f} {len(planted & graph) / len(planted):13.4f} "
            f"{len(graph - exact):6} {exact_seconds:8.1f} {graph_seconds:8.1f}"
        )


def make(clips: int, size: int, within: float) -> tuple[features.Codes, set[tuple[int, int]]]:
    """Codes of clips and, after them, of copies; and which pairs are such."""
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(clips, features.SIZE))
    originals /= np.linalg.norm(originals, axis=1, keepdims=True)
    if size:
        middles = rng.normal(size=(clips // size, features.SIZE))
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        originals = mixed(middles[np.arange(clips) % len(middles)], originals, np.full(clips, within))
    chosen = rng.choice(clips, clips // 10, replace=False)
    noise = rng.normal(size=(len(chosen), features.SIZE))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = mixed(originals[chosen], noise, rng.uniform(0.8, 0.99, len(chosen)))
    every = np.concatenate([originals, copies])
    codes = np.rint(every * (127 / np.abs(every).max(axis=1, keepdims=True))).astype(np.int8)
    return codes, {(int(own), clips + number) for number, own in enumerate(chosen)}


def mixed(
    of: npt.NDArray[np.float64], noise: npt.NDArray[np.float64], cosine: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Directions with this cosine to those of `of`."""
    own = (noise * of).sum(axis=1, keepdims=True)
    across = noise - own * of
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    mix: npt.NDArray[np.float64] = cosine[:, None] * of + np.sqrt(1 - cosine[:, None] ** 2) * across
    return mix


def timed(compare: Callable[..., tuple[Any, Any]], codes: features.Codes) -> tuple[set[tuple[int, int]], float]:
    """Pairs, the smaller first, and seconds of a CPU."""
    begin = time.process_time()
    ours, theirs = compare(codes, COSINE)
    seconds = time.process_time() - begin
    return {(min(a, b), max(a, b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True) if a != b}, seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24_000)
