"""How much of its time a card works: one clip after another, and with other clips decoded and encoded meanwhile.

    python benchmarks/feeding.py --report /tmp/feeding.json

There need be no card: the expert's network sleeps as long as Video-Depth-Anything-S takes on an A100 (7.5 ms a frame).
A build's own `Worker` does the tasks, in as many threads as a GPU actor has hands; one hand is one clip after another,
which is how CPU experts work.

- *sleeping codecs*: decoding and encoding sleep too (9 ms and 45 ms a 480p frame, as measured), so there are as many
  cores as threads. This shows whether the threads keep the card busy.
- *depth*, *flow*: 480p clips are decoded (H.264), and what the expert says is encoded, as builds store it (10-bit depth
  and flow, FFV1), on the cores of this machine. The processor time that this takes is measured first, one clip after
  another. So that few cores suffice, the network then sleeps so long a frame that codecs on `--needs` cores keep up
  with it: by default half of this machine's. Each line also says how many cores a network of 7.5 ms a frame needs.

`busy` is the time that the network ran, over the time from when it first began to when it last ended. On a busy machine
ask for less (`--needs 0.25`): threads that get fewer cores than that cannot keep up, which `cores` (processor time over
the clock) tells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openuni.experts import DecodedClip, Expert
from openuni.modalities import Encoded
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
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
REAL = 480
"""Height of the clips with real codecs."""
HANDS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Row:
    """One way of working. `network`: seconds a frame; `processor`: of decoding and encoding, measured before; `cores`:
    processor time over the clock; `most`: clips that were in memory at once."""

    codecs: str
    network: float
    processor: float
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

    def __init__(self, network: float = NETWORK) -> None:
        self.network = network

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
        time.sleep(self.network * len(part))
        self.worked.append((begin, time.perf_counter()))
        return part


class DepthCard(SleepingCard):
    """Only the network sleeps; its depth is a gradient with the frame's texture."""

    name = "depth_card"
    modality = "depth"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        self._network(len(clip.frames), 0.0)
        slope = np.linspace(1, 2, clip.frames.shape[2], dtype=np.float32)
        return Annotation(Depth(clip.frames[..., 1].astype(np.float32) / 255 + slope, "affine_disparity"))


class FlowCard(SleepingCard):
    """Only the network sleeps; its flow is a zoom with a twentieth of a pixel of noise."""

    name = "flow_card"
    modality = "flow"

    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        self._network(len(clip.frames), 0.0)
        frames, height, width, _ = clip.frames.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        zoom = np.stack([x - width / 2, y - height / 2], -1) * np.float32(0.01)
        noise = np.random.default_rng(0).normal(0, 0.05, (frames - 1, height, width, 2)).astype(np.float32)
        return Annotation(Flow(zoom + noise, np.zeros((frames - 1, height, width), np.bool_)))


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


def measure(
    folder: Path, expert: SleepingCard, hands: int, clips: int, height: int, processor: float = DECODE + ENCODE
) -> Row:
    """Annotate `clips` clips `height` pixels high with so many hands. `processor` of 0 is measured."""
    codecs = expert.modality or "sleeping"
    rgb = Stage(RGB, Kind.NORMALISE, RGB, "rgb-1-bench")
    stage = Stage(expert.name, Kind.ANNOTATE, expert.modality or expert.name, expert.fingerprint(), (RGB,))
    root = Path(tempfile.mkdtemp(dir=folder))
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
    spent = time.process_time() - spent
    cores = spent / (time.perf_counter() - begin)
    worked = sum(end - begin for begin, end in expert.worked)
    whole = expert.worked[-1][1] - expert.worked[0][0]
    return Row(
        codecs, expert.network, processor or spent / (clips * FRAMES), hands, clips, worked / whole, cores, worker.most
    )


def _video(folder: Path, height: int) -> Path:
    """A clip of moving texture, written once."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.conftest import moving_picture

    video = folder / f"{height}.mp4"
    if not video.exists():
        video.write_bytes(encode_video(moving_picture(0, FRAMES, height), 16.0))
    return video


def real(folder: Path, card: type[SleepingCard], clips: int, needs: float) -> Iterator[Row]:
    """One hand at a network that takes no time, which measures the codecs; then more hands at the paced network."""
    processor = measure(folder, card(0.0), 1, 2, REAL, 0.0).processor
    for hands in HANDS:
        yield measure(folder, card(processor / needs), hands, clips, REAL, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--hands", type=int, nargs="*", default=[1, 2, 4, 8, 12, 16])
    parser.add_argument("--real", type=int, default=16, help="clips with real codecs (0: none)")
    parser.add_argument("--needs", type=float, default=(os.cpu_count() or 2) / 2, help="cores that codecs may need")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="openuni-feeding-") as name:
        folder = Path(name)
        for hands in options.hands:
            rows.append(measure(folder, SleepingCard(), hands, max(6, options.clips * hands // 16), 64))
            print(_line(rows[-1]), flush=True)
        for card in (DepthCard, FlowCard) if options.real else ():
            for row in real(folder, card, options.real, options.needs):
                rows.append(row)
                print(_line(row), flush=True)
    if options.report:
        report = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "rows": [asdict(row) for row in rows]}
        options.report.write_text(json.dumps(report, indent=1) + "\n")


def _line(row: Row) -> str:
    return (
        f"{row.codecs:8s} codecs ({1e3 * row.processor:.0f} ms of a core a frame: {row.processor / NETWORK:.1f} cores "
        f"for a network of 7.5 ms), network {1e3 * row.network:.0f} ms, {row.hands:2d} hands: card busy "
        f"{row.busy:.2f}, {row.cores:.2f} cores used, at most {row.most} of {row.clips} clips in memory"
    )


if __name__ == "__main__":
    main()
