"""Seconds a frame of truth and of each picture, against Mitsuba's own geometry; how they grow with pixels and frames.

python benchmarks/render.py              all of it, with processor time: other programs do not change it much
python benchmarks/render.py --no-mitsuba truth and shaded pictures only

The set of 500 clips is a command of its own: `time unibench render --out OUT --scenes 500 --frames 8 --size 64 --for
train --workers 2`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from unibench.rendering.rays import Frame, Geometry
from unibench.rendering.shaded import shade
from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build
from unibench.scenes.graph import Scene

Times = dict[str, float]
AOV = "Mitsuba's geometry"


def seconds(work: Callable[[], Any], repeats: int = 2) -> float:
    """Seconds of processor that a call takes, all threads counted: the least of `repeats`."""
    taken = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return min(taken)


def first_hits(scene: Scene) -> None:
    """What Mitsuba's geometry is: one ray through each pixel's centre and what it meets."""
    geometry = Geometry.of(scene)
    for t in range(len(scene)):
        Frame(scene, geometry, t).cast(scene.camera.rays(t, scene.camera.pixels()))


def ours(scene: Scene) -> Times:
    """Seconds a frame of each part."""
    return {
        "first hits": seconds(lambda: first_hits(scene)) / len(scene),
        "truth": seconds(lambda: trace(scene)) / len(scene),
        "shaded": seconds(lambda: shade(scene)) / len(scene),
    }


def mitsubas(scene: Scene) -> Times:
    """Seconds a frame of its geometry at the same pixel centres, and of its pictures (16 paths a pixel, denoised)."""
    from unibench.rendering.mitsuba import photograph, positions

    positions(scene)  # compiles
    photograph(scene)
    return {
        AOV: seconds(lambda: positions(scene)) / len(scene),
        "Mitsuba": seconds(lambda: photograph(scene), repeats=1) / len(scene),
    }


def measure(families: list[str], size: int, frames: int, *, mitsuba: bool) -> Times:
    """Mean over one scene of each family."""
    found = []
    for number, family in enumerate(families):
        scene = build(Spec(family, number, frames, size, size))
        found.append(ours(scene) | (mitsubas(scene) if mitsuba else {}))
    return {name: statistics.mean(times[name] for times in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mitsuba", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--sizes", default="128,256,512", help="heights and widths, pixels")
    parser.add_argument("--families", default="collide,fly,walk")
    parser.add_argument("--frames", type=int, default=3)
    options = parser.parse_args()
    families, sizes = options.families.split(","), [int(size) for size in options.sizes.split(",")]
    print(f"seconds of processor a frame, mean over {', '.join(families)}")
    by_size = {}
    for size in sizes:
        times = by_size[size] = measure(families, size, options.frames, mitsuba=options.mitsuba)
        print(f"  {size}²: " + "; ".join(f"{name} {value:.3f}" for name, value in times.items()))
        if options.mitsuba:
            print(f"     over {AOV}: " + "; ".join(f"{n} {v / times[AOV]:.2f}" for n, v in times.items() if n != AOV))
    for small, large in itertools.pairwise(sizes):
        pixels = (large / small) ** 2
        growth = {name: by_size[large][name] / by_size[small][name] for name in by_size[small]}
        print(f"  {small}² to {large}², {pixels:g} times the pixels: "
              + "; ".join(f"{name} {value:.2f} times" for name, value in growth.items()))  # fmt: skip
    few, many = (measure(families, sizes[0], n, mitsuba=False) for n in (options.frames, 4 * options.frames))
    print(f"  {sizes[0]}², {options.frames} to {4 * options.frames} frames: "
          + "; ".join(f"{name} {4 * many[name] / few[name]:.2f} times" for name in few))  # fmt: skip


if __name__ == "__main__":
    main()
