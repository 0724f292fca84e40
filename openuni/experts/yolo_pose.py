"""Skeletons by YOLO11 pose, of the package `ultralytics` (Jocher et al.), which is under AGPL-3.0 as its weights are.

One look at a frame finds all people at once: fast, and on its own in a crowd. The package changes its process on
import, installs what it misses and reports its use; `_ultralytics` takes all of that away.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile, Url
from openuni.errors import AssetError
from openuni.experts import tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import of_tracked, people_in
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation

Floats = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="yolo11n-pose",
    filename="yolo11n-pose.pt",
    license="AGPL-3.0",
    sha256="869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
    size=6_255_593,
    sources=(
        HubFile("Ultralytics/YOLO11", "ef787449d1fe015a77a27ca4d375ed0fde69495c", "yolo11n-pose.pt"),
        Url("https://github.com/ultralytics/assets/releases/download/v8.3.0/yolo11n-pose.pt"),
    ),
)
_JOINTS = 17
_SIDE = 640
"""Longer side of what the network sees, as the package's own prediction has it."""
_LEAST = 0.25
"""Least score of a person, and the overlap from which two boxes are one person: the package's own."""
_ONE_PERSON = 0.7
_NO_LIMIT = 1e9
"""Seconds that suppression may take: by default it stops early on a busy machine, and the answer would hang on it."""


class YoloPose(Expert):
    """COCO-17 joints of each tracked person, in pixels, with scores.

    A person of `rf_detr` has the joints of the box that YOLO puts there (one to one, by overlap), so that numbers agree
    with those of the masks; whom only YOLO sees is left out. A joint's score is YOLO's visibility, 0–1.
    """

    name = "yolo_pose"
    version = 1
    modality = "skeleton"
    license = "AGPL-3.0"
    training_data = "COCO, terms of its own"
    notice = "ultralytics and its weights are AGPL-3.0: what you build into a service with them must be open, too"
    requires = ("rf_detr",)
    assets = (WEIGHTS,)
    packages = ("scipy", "torch", "torchvision", "ultralytics")
    installed_by = "openuni[production,yolo]"
    resources = Resources(cpus=1, gpus=0.25, memory_gib=2)
    seconds_per_frame = 0.15

    def setup(self) -> None:
        """Load the network by the package's restricted loading. Raises AssetError on any other file."""
        file = assets.path(self.assets[0])
        with _ultralytics():
            from ultralytics.nn.tasks import torch_safe_load

            try:
                checkpoint, _ = torch_safe_load(str(file), safe_only=True)
                network = (checkpoint.get("ema") or checkpoint["model"]).float().fuse(verbose=False).eval()
                joints, values = network.kpt_shape
            except (TypeError, RuntimeError, KeyError, AttributeError, ImportError, pickle.UnpicklingError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise AssetError(f"{file} is no YOLO pose network that can be loaded safely: {reason}") from error
        if (joints, values) != (_JOINTS, 3):
            raise AssetError(f"{file} finds {joints} points of {values} values; skeletons have {_JOINTS} of 3")
        from openuni.experts.weights import device

        self._model: Any = network.requires_grad_(False).to(device())

    def annotate(self, clip: DecodedClip) -> Annotation[Skeleton]:
        """Skeletons of the clip; of nobody, with confidence 0, where nobody is tracked."""
        from openuni.experts.weights import provenance

        people = people_in(clip, "rf_detr")
        frames, height, width, _ = clip.frames.shape
        keypoints = np.full((frames, people.count, _JOINTS, 3), (np.nan, np.nan, 0), np.float32)
        for t, frame in enumerate(clip.frames):
            here = np.flatnonzero(~np.isnan(people.boxes[t, :, 0]))
            if not len(here):
                continue
            boxes, joints = self.look(frame)
            for i, j in tracking.pairs(people.boxes[t, here], boxes).items():
                keypoints[t, here[i]] = _present(joints[j], height, width)
        return replace(of_tracked(keypoints, people, height, width), provenance=provenance())

    def look(self, frame: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Boxes `[N, 4]` and joints `[N, 17, 3]` in pixels of everybody in a frame, the surest first."""
        import torch
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils import nms, ops

        boxed = LetterBox((_SIDE, _SIDE), auto=True, stride=int(self._model.stride.max()))(image=frame)
        image = torch.from_numpy(np.ascontiguousarray(boxed.transpose(2, 0, 1)))[None].float() / 255
        with torch.inference_mode():
            answer = self._model(image.to(next(self._model.parameters()).device))
        classes = len(self._model.names)
        (found,) = nms.non_max_suppression(answer, _LEAST, _ONE_PERSON, nc=classes, max_time_img=_NO_LIMIT)
        found = found.float().cpu().clone()
        boxes = ops.scale_boxes(image.shape[2:], found[:, :4], frame.shape)
        joints = ops.scale_coords(image.shape[2:], found[:, 6:].view(len(found), _JOINTS, 3), frame.shape)
        return boxes.numpy(), joints.numpy()

    def teardown(self) -> None:
        del self._model


def _present(joints: Floats, height: int, width: int) -> Floats:
    """Joints without those that YOLO has clipped to the frame's edges, or does not believe."""
    x, y, score = np.moveaxis(joints, -1, 0)
    there = (x > 0) & (x < width) & (y > 0) & (y < height) & (score > 0)
    kept: Floats = np.where(there[:, None], joints, np.array([np.nan, np.nan, 0], np.float32))
    return kept


_QUIET = {
    "YOLO_OFFLINE": "1",  # no question whether there is a network, no report of what is run
    "YOLO_AUTOINSTALL": "0",
    "YOLO_VERBOSE": "0",
    "ULTRALYTICS_SAFE_LOAD": "1",
}


@contextmanager
def _ultralytics() -> Iterator[None]:
    """In here ultralytics may be imported; the process is as it was afterwards.

    Its import replaces `torch.save` and `PIL.Image.open`, sets OpenCV's threads, the environment and how numbers are
    printed, adds to the classes that `torch.load` takes from a file, and writes settings into the user's home.
    """
    import torch
    from PIL import Image

    environment, threads = dict(os.environ), cv2.getNumThreads()
    save, opened = torch.save, Image.open
    known = torch.serialization.get_safe_globals()
    with (
        tempfile.TemporaryDirectory(prefix="openuni-ultralytics-") as settings,
        warnings.catch_warnings(),
        np.printoptions(),
    ):
        os.environ.update(_QUIET, YOLO_CONFIG_DIR=settings)
        tensors = vars(torch._tensor_str.PRINT_OPTS).copy()
        try:
            yield
        finally:
            vars(torch._tensor_str.PRINT_OPTS).update(tensors)
            torch.save, Image.open = save, opened
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(known)
            cv2.setNumThreads(threads)
            for variable in set(os.environ) - set(environment):
                del os.environ[variable]
            os.environ.update(environment)
