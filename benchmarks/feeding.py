"""How much of its time a card works: one clip after another, and with other clips decoded and encoded meanwhile.

    python benchmarks/feeding.py --report /tmp/feeding.json

There need be no card: the expert's network sleeps as long as Video-Depth-Anything-S takes on an A100 (7.5 ms a frame).
A build's own `Worker` does the tasks, in as many threads as a GPU actor has hands; one hand is one clip after another,
which is how CPU experts work.

- *sleeping codecs*: decoding and encoding sleep too (9 ms and 45 ms a 480p frame, as measured), so there are as many
  cores as threads. This shows whether the threads keep the card busy.
- *real codecs*: 480p clips are decoded and depth is encoded as FFV1, on the cores of this machine: the share is bound
  by cores × 7.5 / (9 + 42), and the processor time over the clock says how many cores the threads really got.

`busy` is the time that the network ran, over the time from when it first began to when it last ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openuni.experts import DecodedClip, Expert
from openuni.modalities import Encoded
from openuni.modalities.depth import Depth
from openuni.sample import Annotation, Clip
from openuni.shards import results
from openuni.video import Limits, Normalisation, encode_video
from openuni_pipelines.engine.recipe import RGB, Kind, Recipe, Stage
from openuni_pipelines.engine.stages import Job, Run, Worker

REPOSITORY = Path(__file__).parents[1]
FRAMES = 24
DECODE, NETWORK, ENCODE = 0.009, 0.0075, 0.045
"""Seconds a 480p frame."""
BATCH = 8


@dataclass(frozen=True)
class Row:
    """One way of working. `cores`: processor time over the clock; `most`: clips that were in memory at once."""

    codecs: str
    hands: int
    clips: int
    busy: float
    cores: float
    most: int


class SleepingCard(Expert):
    """An expert whose network sleeps on a card that it takes turns at; decoding and encoding sleep as well."""

    name = "sleeping_card"
    version = 1
    modality: str | None = None  # type: ignore[misc]  # None for some, depth for the subclass
    license = "none"
    concurrent = True

    def setup(self) -> None:
        from openuni.experts.weights import Batches

        self._batches = Batches(BATCH)
        self.worked: list[tuple[float, float]] = []

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        self._network(len(clip.frames), DECODE)
        return Annotation(len(clip.frames))

    @staticmethod
    def encode_findings(value: Any) -> Encoded:
        time.sleep(ENCODE * value)
        return Encoded({"nothing": b""}, {})

    def _network(self, frames: int, decode: float) -> None:
        import torch

        time.sleep(decode * frames)
        self._batches.run(self._sleep, torch.zeros(frames))

    def _sleep(self, part: Any) -> Any:
        begin = time.perf_counter()
        time.sleep(NETWORK * len(part))
        self.worked.append((begin, time.perf_counter()))
        return part


class RealCodecs(SleepingCard):
    """Only the network sleeps; its depth is a gradient with noise, which FFV1 takes as long for as for real depth."""

    modality = "depth"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        self._network(len(clip.frames), 0.0)
        values = clip.frames[..., 1].astype(np.float32) / 255 + np.linspace(
            1, 2, clip.frames.shape[2], dtype=np.float32
        )
        return Annotation(Depth(values, "affine_disparity"))


class Watched(Worker):
    """Counts the clips that it has in memory."""

    def __init__(self, job: Job, expert: SleepingCard) -> None:
        super().__init__(job)
        expert.setup()
        self._experts[expert.name] = expert
        self._turns[expert.name] = nullcontext()
        self._count = threading.Lock()
        self._inside = self.most = 0

    def run(self, task: Any) -> Any:
        with self._count:
            self._inside += 1
            self.most = max(self.most, self._inside)
        try:
            return super().run(task)
        finally:
            with self._count:
                self._inside -= 1


def measure(folder: Path, expert: SleepingCard, hands: int, clips: int, height: int) -> Row:
    """Annotate `clips` clips `height` pixels high with so many hands."""
    codecs = "sleeping" if expert.modality is None else "real"
    rgb = Stage(RGB, Kind.NORMALISE, RGB, "rgb-1-bench")
    stage = Stage(expert.name, Kind.ANNOTATE, expert.modality or expert.name, expert.fingerprint(), (RGB,))
    root = folder / f"{codecs}{hands}"
    worker = Watched(
        Job(root, "bench", Recipe((rgb, stage), (), ()), Normalisation(short_side=height), Limits()), expert
    )
    results.open_work(root, 0)
    keys = [f"c{number:03d}" for number in range(clips)]
    Worker(worker.job).run(Run(0, keys[0], rgb, Clip(keys[0], str(_video(folder, height)))))
    first = results.load(root, 0, keys[0], rgb.fingerprint)
    for key in keys[1:]:
        results.save(root, 0, key, rgb.fingerprint, first, "bench")
    spent, begin = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(hands) as pool:
        list(pool.map(worker.run, [Run(0, key, stage) for key in keys]))
    cores = (time.process_time() - spent) / (time.perf_counter() - begin)
    worked = sum(end - begin for begin, end in expert.worked)
    whole = expert.worked[-1][1] - expert.worked[0][0]
    return Row(codecs, hands, clips, worked / whole, cores, worker.most)


def _video(folder: Path, height: int) -> Path:
    """A clip of moving texture, written once."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.conftest import moving_picture

    video = folder / f"{height}.mp4"
    if not video.exists():
        video.write_bytes(encode_video(moving_picture(0, FRAMES, height), 16.0))
    return video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--hands", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    parser.add_argument("--real", type=int, default=16, help="clips with real codecs (0: none)")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="openuni-feeding-") as name:
        for hands in options.hands:
            rows.append(measure(Path(name), SleepingCard(), hands, max(6, options.clips * hands // 16), 64))
            print(_line(rows[-1]), flush=True)
        for hands in (1, 2, 4) if options.real else ():
            rows.append(measure(Path(name), RealCodecs(), hands, options.real, 480))
            print(_line(rows[-1]), flush=True)
    if options.report:
        report = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "rows": [asdict(row) for row in rows]}
        options.report.write_text(json.dumps(report, indent=1) + "\n")


def _line(row: Row) -> str:
    return (
        f"{row.codecs:8s} codecs, {row.hands:2d} hands: card busy {row.busy:.2f}, {row.cores:.2f} cores used, "
        f"at most {row.most} of {row.clips} clips in memory"
    )


if __name__ == "__main__":
    main()
