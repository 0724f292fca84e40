"""Seconds a frame of the five light modalities, on one and on two processor cores.

    python benchmarks/people.py VIDEO [VIDEO …]

Each video is read at 24 frames a second, 640×360, at most four seconds, and annotated by every light expert, each core
count in a process of its own. MediaPipe takes no thread count, so the process is bound to its cores; the others hold to
the thread they declare. Detection is counted: it runs in `people` alone, ten times a second (in every frame while
somebody holds something), whatever is built on it. Processor seconds stand below those on the clock,
for a machine that is busy with other things.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

EXPERTS = ("people", "dis", "fastdepth", "mediapipe_pose", "mediapipe_segmentation", "body_fit")
FPS, SECONDS, WIDTH, HEIGHT = 24.0, 4, 640, 360


def measure(video: Path) -> dict[str, float]:
    """Seconds a frame by expert, for the process as it is bound; also the person-frames and the detector's runs."""
    from openuni.errors import OpenUniError
    from openuni.experts import base
    from openuni.sample import Annotation
    from openuni.video import read_frames

    cv2.setNumThreads(len(os.sched_getaffinity(0)))
    frames = np.stack(
        [
            cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            for frame in islice(read_frames(video, fps=FPS), int(FPS * SECONDS))
        ]
    )
    found: dict[str, Annotation] = {}
    seconds: dict[str, float] = {"frames": len(frames)}
    for name in EXPERTS:
        expert = base.get(name)()
        expert.setup()
        runs = _count_detections(expert) if name == "people" else None
        clip = base.DecodedClip(video.stem, frames, FPS, found)
        begin, busy = time.perf_counter(), time.process_time()
        try:
            found[name] = expert.annotate(clip)
        except OpenUniError as error:
            print(f"{video.stem}: {name}: {error}", file=sys.stderr)
        seconds[name] = (time.perf_counter() - begin) / len(frames)
        seconds[f"{name} cpu"] = (time.process_time() - busy) / len(frames)
        expert.teardown()
        if runs is not None:
            seconds["detections"] = len(runs)
    people = found["people"].value
    seconds["person_frames"] = int((~np.isnan(people.landmarks[..., 0, 0])).sum())
    return seconds


def _count_detections(expert: object) -> list[int]:
    """Make the finder's detector note each of its runs."""
    detector, runs = expert._detector, []  # type: ignore[attr-defined]

    class Counted:
        def detect(self, image: object) -> object:
            runs.append(1)
            return detector.detect(image)

        def close(self) -> None:
            detector.close()

    expert._detector = Counted()  # type: ignore[attr-defined]
    return runs


def main(videos: list[str]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"{'clip':<26}{'cores':>6}" + "".join(f"{name[-12:]:>14}" for name in EXPERTS) + f"{'all':>8}{'fit/person':>12}"
    )
    for video in videos:
        for count in (1, 2):
            if count > len(cores):
                continue
            bound = {"OMP_NUM_THREADS": str(count), "PATH": os.environ["PATH"]}
            result = subprocess.run(
                [sys.executable, __file__, "--one", video],
                env={**os.environ, **bound},
                preexec_fn=lambda count=count: os.sched_setaffinity(0, cores[:count]),
                capture_output=True,
                text=True,
                check=True,
            )
            one = json.loads(result.stdout.splitlines()[-1])
            for kind in ("", " cpu"):
                each = "".join(f"{one[name + kind]:>14.3f}" for name in EXPERTS)
                total = sum(one[name + kind] for name in EXPERTS)
                fit = one["body_fit" + kind] * one["frames"] / max(1, one["person_frames"])
                label = f"{Path(video).stem[:20]}{kind or ' wall'}"
                print(f"{label:<26}{count:>6}{each}{total:>8.3f}{fit:>12.3f}")
            print(
                f"{'':<32}{one['detections']} detections, {one['frames']} frames, {one['person_frames']} person-frames"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    elif sys.argv[1:]:
        main(sys.argv[1:])
    else:
        sys.exit("usage: python benchmarks/people.py VIDEO [VIDEO …]")
