"""Generated video, judged by itself and by its prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from openuni.sample import Sample
from unibench.formats import prompts
from unibench.formats.arrays import LARGEST
from unibench.formats.plain import read_rgb_frames, read_video, whole
from unibench.metrics.video import Video, VideoMetric
from unibench.tasks.base import Info, Run, Setup, Shape, Stored
from unibench.tasks.drawing import Panel, heat


class VideoTask(Stored[Video]):
    """RGB; a folder holds mp4, webm, gif, mov, mkv or avi, or png or jpg frames with a rate in predictions.json."""

    name = "video"
    column = "rgb"
    needs_truth = False

    def metric(self, setup: Setup) -> VideoMetric:
        return VideoMetric(setup.measures)

    def keys(self, predictions: Run, truth: Run | None) -> list[str]:
        del truth
        return predictions.keys("video")

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Video:
        """The prompt as `unibench.formats.prompts` finds it."""
        file = whole(entry)
        if file is None:
            if info.fps is None:
                raise OpenUniError(f'{entry}: frames have no rate; say it in predictions.json: {{"fps": 16}}')
            return Video(read_rgb_frames(entry, most), info.fps, prompts.prompt_of(entry))
        frames, fps = read_video(file, most)
        return Video(frames, fps, prompts.prompt_of(entry))

    def of_sample(self, sample: Sample) -> Video:
        value = sample[self.column]
        return Video(value.frames, value.fps, sample.caption or None)

    def check(self, value: Video) -> None:
        del value  # decoded frames are frames

    def shape(self, value: Video) -> Shape:
        frames, height, width, _ = value.frames.shape
        return frames, height, width

    def cut(self, value: Video, frames: int) -> Video:
        return replace(value, frames=value.frames[:frames])

    def pick(self, value: Video, index: npt.NDArray[np.int64]) -> Video:
        return replace(value, frames=value.frames[index])

    def resize(self, value: Video, height: int, width: int) -> Video:
        resized: Video = self.modality.resize(value, height, width)
        return resized

    def panels(self, predicted: Video, true: Any, frame: int, setup: Setup) -> list[Panel]:
        """A frame, and what changes until the next."""
        del true, setup
        return frame_and_change(predicted.frames, frame)


def frame_and_change(frames: npt.NDArray[np.uint8], t: int) -> list[Panel]:
    """A frame, and what changes until the next."""
    change = np.abs(frames[min(t + 1, len(frames) - 1)].astype(np.int16) - frames[t]).mean(axis=-1)
    return [Panel("frame", frames[t]), Panel("change to the next frame: 0 … 64", heat(change, 64))]
