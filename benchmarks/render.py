"""Seconds a frame for truth and for each picture, by size; the training set of 500 clips.

python benchmarks/render.py            truth and shaded pictures
python benchmarks/render.py --mitsuba  also Mitsuba's pictures and its geometry at equal sample positions
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from unibench.scenes.families import FAMILIES, Spec, build
from unibench.shaded import shade
from unibench.truth import trace


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mitsuba", action="store_true", help="also time Mitsuba")
    parser.add_argument("--sizes", default="64,256,512", help="heights and widths, pixels")
    parser.add_argument("--frames", type=int, default=4)
    options = parser.parse_args()
    print("seconds of processor (wall), mean over all families")
    for size in map(int, options.sizes.split(",")):
        total = {"build a scene": [0.0, 0.0], "truth a frame": [0.0, 0.0], "shaded a frame": [0.0, 0.0]}
        for number, family in enumerate(FAMILIES):
            spec = Spec(family, number, options.frames, size, size)
            scene = build(spec)
            for name, work, share in (
                ("build a scene", lambda spec=spec: build(spec), 1),
                ("truth a frame", lambda scene=scene: trace(scene), options.frames),
                ("shaded a frame", lambda scene=scene: shade(scene), options.frames),
            ):
                wall, processor = seconds(work)
                total[name][0] += wall / share / len(FAMILIES)
                total[name][1] += processor / share / len(FAMILIES)
        print(f"{size}²: " + "; ".join(f"{name} {cpu:.4f} ({wall:.4f})" for name, (wall, cpu) in total.items()))
        clip = total["build a scene"][1] + 8 * (total["truth a frame"][1] + total["shaded a frame"][1])
        print(f"  500 clips of 8 frames on two cores, before encoding: {clip * 250 / 60:.1f} minutes")
        if options.mitsuba:
            _mitsuba(size)


def _mitsuba(size: int) -> None:
    from unibench.render_mitsuba import photograph, position

    scene = build(Spec("collide", 2, 4, size, size))
    photograph(scene)  # compiles
    wall, cpu = seconds(lambda: photograph(scene))
    print(f"  Mitsuba, 16 paths a pixel and denoised: {cpu / 4:.3f} ({wall / 4:.3f}) a frame")
    position(scene, 0)
    wall, cpu = seconds(lambda: position(scene, 0))
    print(f"  Mitsuba's positions at pixel centres: {cpu:.3f} ({wall:.3f}) a frame")


if __name__ == "__main__":
    main()
