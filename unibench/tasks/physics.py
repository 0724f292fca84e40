"""Physics-IQ: does what moves in a generated video move where, when and as much as it truly did?"""

from __future__ import annotations

from typing import Any

from unibench.formats.arrays import LARGEST
from unibench.metrics.physics import PhysicsMetric, Takes
from unibench.metrics.video import Video
from unibench.tasks.base import Rates, Run, Setup, Shape, Task
from unibench.tasks.drawing import Panel
from unibench.tasks.video import VideoTask, frame_and_change


class PhysicsTask(Task):
    """Generated against true RGB; scored where the user asks for it."""

    name = "physics"
    by_default = False

    @property
    def reads(self) -> tuple[str, ...]:
        return ("video",)

    @property
    def rests_on(self) -> tuple[str, ...]:
        return ("video", "second_take")

    def keys(self, predictions: Run, truth: Run | None) -> list[str]:
        return (truth or predictions).keys("video")

    def metric(self, setup: Setup) -> PhysicsMetric:
        del setup
        return PhysicsMetric()

    def load(self, predictions: Run, key: str, most: int = LARGEST) -> Video:
        video: Video = predictions.load("video", key, most)
        return video

    def load_truth(self, truth: Run, key: str) -> Takes:
        second = truth.second_take(key)
        return Takes(truth.load("video", key).frames, None if second is None else second.frames)

    def size(self, true: Takes) -> Shape:
        frames, height, width, _ = true.first.shape
        return frames, height, width

    def align(self, predicted: Video, true: Takes, rates: Rates) -> Video:
        return VideoTask().resample(predicted, self.size(true), (predicted.fps, rates[1]))

    def panels(self, predicted: Any, true: Any, frame: int, setup: Setup) -> list[Panel]:
        del true, setup
        return frame_and_change(predicted.frames, frame)
