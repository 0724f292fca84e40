"""YOLO pose behind the expert: the package's own network with random weights, and what its import must not leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not __import__("importlib").util.find_spec("ultralytics"):
    pytest.skip("ultralytics is not installed", allow_module_level=True)

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import sets, yolo_pose  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.modalities.skeleton import SkeletonModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402
from tests.openuni.experts.published import serve  # noqa: E402
from tests.openuni.experts.test_dwpose import tracked  # noqa: E402


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """YOLO11n pose with random weights as ultralytics publishes it: a dictionary with the pickled network."""
    torch.manual_seed(0)
    with yolo_pose._ultralytics():
        from ultralytics.nn.tasks import PoseModel

        network = PoseModel("yolo11n-pose.yaml", nc=1, verbose=False)
    network.names = {0: "person"}
    for module in network.modules():  # so that random weights see somebody
        if isinstance(module, torch.nn.Sequential) and getattr(module[-1], "out_channels", 0) == 1:
            torch.nn.init.normal_(module[-1].weight, 0, 0.3)
            torch.nn.init.zeros_(module[-1].bias)
    file = tmp_path / "yolo11n-pose.pt"
    torch.save({"model": network.half(), "ema": None, "train_args": {"imgsz": 640, "task": "pose"}, "epoch": -1}, file)
    return file


def test_it_sees_what_ultralytics_sees(published: Path, served: tuple[Path, str]) -> None:
    class Pinned(yolo_pose.YoloPose):
        assets = (serve(served, yolo_pose.WEIGHTS, published),)

    frames = np.random.default_rng(0).integers(0, 255, (2, 96, 128, 3), dtype=np.uint8)
    expert, taken = Pinned(), set(torch.serialization.get_safe_globals())
    expert.setup()
    assert set(torch.serialization.get_safe_globals()) == taken  # other files may hold no more than before
    answers: list[Any] = []
    expert._model.register_forward_hook(lambda module, image, answer: answers.append((image[0], answer[0])))
    expert.look(frames[0])
    with yolo_pose._ultralytics():
        from ultralytics import YOLO

        bare = YOLO(str(published), task="pose")
        bare.predict(frames[0][..., ::-1], verbose=False, save=False)  # sets it up
        bare.predictor.model.model.register_forward_hook(lambda m, image, answer: answers.append((image[0], answer[0])))
        (theirs,) = bare.predict(frames[0][..., ::-1], verbose=False, save=False)
    (image, ours), (their_image, raw) = answers
    np.testing.assert_array_equal(image, their_image)
    np.testing.assert_allclose(ours, raw, rtol=1e-4, atol=1e-4)
    # Random scores are close together, and suppression hangs on their order: it is compared on one and the same answer.
    expert._model.register_forward_hook(lambda module, image, answer: (raw.clone(), answer[1]))
    boxes, joints = expert.look(frames[0])
    assert len(boxes) > 1
    np.testing.assert_allclose(boxes, theirs.boxes.xyxy.numpy(), atol=1e-4)
    np.testing.assert_allclose(joints, theirs.keypoints.data.numpy(), atol=1e-4)
    again = expert.look(frames[0])
    np.testing.assert_array_equal(joints, again[1])

    people = np.stack([boxes[:2], boxes[:2]])[:, ::-1].copy()
    annotation = expert.annotate(DecodedClip("c", frames, 16.0, {"rf_detr": Annotation(tracked(people, 96, 128))}))
    SkeletonModality().check(annotation.value)
    seen = annotation.value.keypoints[0, ..., 2] > 0
    for p, j in ((0, 1), (1, 0)):  # a person's joints are those of their own box
        np.testing.assert_array_equal(annotation.value.keypoints[0, p, seen[p]], joints[j, seen[p]])


def test_files_that_are_not_yolos_or_run_code_are_refused(served: tuple[Path, str], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for content in ({"model": Evil()}, {"model": {"a": torch.zeros(1)}}):
        torch.save(content, tmp_path / "yolo.pt")

        class Foreign(yolo_pose.YoloPose):
            assets = (serve(served, yolo_pose.WEIGHTS, tmp_path / "yolo.pt"),)

        with pytest.raises(AssetError, match="is no YOLO pose network that can be loaded safely"):
            Foreign().setup()
    assert not (tmp_path / "ran").exists()


IMPORT = """
import os, socket, sys, threading
import cv2, numpy, torch
from PIL import Image

reached = []
def blocked(self, address, *rest):
    reached.append(address)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = blocked
socket.getaddrinfo = lambda *a, **k: blocked(None, a)
import subprocess
started = []
real = subprocess.Popen.__init__
def popen(self, args, *rest, **more):
    started.append(args)
    return real(self, args, *rest, **more)
subprocess.Popen.__init__ = popen

cv2.setNumThreads(2)
def state():
    printed = repr(numpy.array([1.0, 2.5])), repr(torch.ones(2))
    return dict(os.environ), cv2.getNumThreads(), torch.save, Image.open, *printed
before = state()
from openuni.experts import yolo_pose
with yolo_pose._ultralytics():
    import ultralytics.data.augment, ultralytics.utils.nms, ultralytics.nn.tasks
    from ultralytics.utils import AUTOINSTALL, ONLINE, SAFE_LOAD
    from ultralytics.utils.events import events
after = state()
assert before == after, [(a, b) for a, b in zip(before, after) if a != b]
assert (AUTOINSTALL, ONLINE, SAFE_LOAD, events.enabled) == (False, False, True, False)
assert not reached, reached
assert not any("pip" in str(args) for args in started), started
assert threading.active_count() == 1, threading.enumerate()
"""


def test_its_import_changes_nothing_asks_nobody_and_installs_nothing(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ultralytics" not in done.stdout + done.stderr
    assert not [file for file in tmp_path.rglob("*") if "ltralytics" in file.name]


def test_its_license_is_told_where_it_is_chosen() -> None:
    assert "AGPL-3.0" in sets.notices(["light", "yolo_pose"])["yolo_pose"]
    assert sets.notices(["light", "production"]) == {}
