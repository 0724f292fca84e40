"""Whether views that were generated together agree; no truth is needed."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from openuni.errors import AbsentModalityError
from unibench.formats.arrays import LARGEST
from unibench.metrics.consistency import ConsistencyMetric, Views
from unibench.tasks.base import Run, Setup, Task
from unibench.tasks.depth import DepthTask
from unibench.tasks.drawing import Panel
from unibench.tasks.flow import FlowTask
from unibench.tasks.segmentation import SegmentationTask
from unibench.tasks.video import VideoTask, frame_and_change


class ConsistencyTask(Task):
    """RGB and flow, and depth and segmentation where the sample has them."""

    name = "consistency"
    needs_truth = False

    @property
    def reads(self) -> tuple[str, ...]:
        return ("video", "flow", "depth", "segmentation", "camera")

    def offered(self, values: Set[str]) -> bool:
        return {"video", "flow"} <= values

    def keys(self, predictions: Run, truth: Run | None) -> list[str]:
        del truth
        return sorted(set(predictions.keys("video")) & set(predictions.keys("flow")))

    def metric(self, setup: Setup) -> ConsistencyMetric:
        del setup
        return ConsistencyMetric()

    def load(self, predictions: Run, key: str, most: int = LARGEST) -> Views:
        """The views on the RGB's frames. Raises AbsentModalityError without RGB or flow."""
        video, rate = predictions.load("video", key, most), predictions.fps(key)
        shape = VideoTask().shape(video)
        rates = (rate, video.fps)
        predicted: dict[str, Any] = {}
        for task in (FlowTask(), DepthTask(), SegmentationTask()):
            if task.name in predictions.values():
                try:
                    predicted[task.name] = task.resample(predictions.load(task.name, key, most), shape, rates)
                except AbsentModalityError:
                    if task.name == "flow":
                        raise
        camera = predictions.camera(key)
        return Views(video.frames, **predicted, camera=None if camera is None else camera.cut(shape[0]))

    def panels(self, predicted: Any, true: Any, frame: int, setup: Setup) -> list[Panel]:
        del true, setup
        return frame_and_change(predicted.frames, frame)
