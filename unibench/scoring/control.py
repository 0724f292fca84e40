"""Control fidelity: what a named expert sees in a generated video, scored against the control it was given.

The expert's own error is part of the number, so it compares models only under one expert; the protocol names it with
its version and weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openuni import experts
from openuni.errors import OpenUniError
from openuni.experts import DecodedClip, Expert
from openuni.sample import Annotation
from unibench import tasks
from unibench.formats.arrays import LARGEST
from unibench.tasks import Run


class Reestimated(Run):
    """The generated videos of a run, seen by experts: `load("depth", key)` is what an expert finds in the video."""

    def __init__(self, run: Run, names: Mapping[str, str]) -> None:
        """`names` maps a task to the expert that estimates it. Raises OpenUniError where an expert does not do that."""
        self.path = run.path
        self._run = run
        self._names = dict(names)
        self._experts: dict[str, Expert] = {}
        for task, name in names.items():
            made = experts.get(name)
            if task not in tasks.estimated() or made.modality != task:
                raise OpenUniError(f"the expert {name!r} estimates {made.modality or 'nothing by itself'}, not {task}")

    def values(self) -> list[str]:
        return [task for task in tasks.estimated() if task in self._names]

    def keys(self, task: str) -> list[str]:
        return self._run.keys("video")

    def has(self, task: str, key: str) -> bool:
        return self._run.has("video", key)

    def fps(self, key: str) -> float | None:
        return None  # the control has the frames of the video; what is longer is cut

    def digest(self, task: str, key: str) -> str:
        return self._run.digest("video", key)

    def load(self, task: str, key: str, most: int = LARGEST) -> Any:
        """What the expert sees. Raises AbsentModalityError without a video, OpenUniError where it sees nothing."""
        video = self._run.load("video", key, most)
        if task == "video":
            return video
        return self._annotate(self._names[task], DecodedClip(key, video.frames, video.fps, {})).value

    def _annotate(self, name: str, clip: DecodedClip) -> Annotation[Any]:
        """Run the expert after those that it requires; each loads its weights once."""
        if name not in self._experts:
            self._experts[name] = experts.get(name)()
            self._experts[name].setup()
        expert = self._experts[name]
        needed = {required: self._annotate(required, clip) for required in expert.requires}
        needed |= {str(experts.get(name).modality): self._annotate(name, clip) for name in expert.otherwise}
        return expert.annotate(DecodedClip(clip.key, clip.frames, clip.fps, needed))


def fingerprints(names: Mapping[str, str]) -> dict[str, str]:
    """Version and weights of each task's expert, for the protocol."""
    return {task: experts.get(name).fingerprint() for task, name in sorted(names.items())}
