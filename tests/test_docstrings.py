"""Every `Example:` in the docstrings of the four packages runs as it stands, in a folder with a small `data/demo`."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openuni
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni.video import encode_video

ROOT = Path(__file__).parents[1]
PACKAGES = (
    ROOT / "openuni",
    ROOT / "unibench",
    ROOT / "model" / "openuni_model",
    ROOT / "pipelines" / "openuni_pipelines",
)
COLUMNS = {"rgb": "normalise-1", "depth": "fastdepth-1", "flow": "dis-1"}
CAPTIONS = {
    "bikes-street": "Cars drive along a street of old houses, seen through a green railing.",
    "bunny": "A big grey rabbit crawls out of its burrow in a meadow and stretches.",
    "carphone": "A man in a suit and a red bow tie talks in a moving car.",
}
T, H, W = 4, 16, 24


def modules() -> list[str]:
    """Modules whose docstrings have examples, found without importing any."""
    named = []
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            if re.search(r"Example:\n\s*>>> ", file.read_text()):
                parts = file.relative_to(package.parent).with_suffix("").parts
                named.append(".".join(parts).removesuffix(".__init__"))
    return named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three samples in `data/demo`, the second's depth hardly to be trusted, and a video in `videos`."""
    folder = tmp_path_factory.mktemp("examples")
    root, rng = folder / "data" / "demo", np.random.default_rng(0)
    for key, caption in CAPTIONS.items():
        record = Record(key, T, H, W, 16.0, caption=caption, source="demo", source_id=key, video_id=key)
        annotations = {
            "rgb": Annotation(Rgb(rng.integers(0, 256, (T, H, W, 3), np.uint8), 16.0, exact=True)),
            "depth": Annotation(
                Depth(rng.uniform(1, 9, (T, H, W)).astype(np.float32), "relative"), 0.25 if key == "bunny" else 0.75
            ),
            "flow": Annotation(Flow(rng.uniform(-3, 3, (T - 1, H, W, 2)).astype(np.float32)), 0.5),
        }
        writer.save_sample(root, 0, record, annotations, COLUMNS, "run")
    writer.commit_shard(root, 0, list(CAPTIONS), COLUMNS, "run")
    writer.write_manifest(root, {"source": "demo"}, COLUMNS, len(CAPTIONS), 1, "run")
    (folder / "videos").mkdir()
    ball = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    (folder / "videos" / "ball.mp4").write_bytes(encode_video(ball, 16.0))
    return folder


def test_the_readmes_first_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (example, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)  # our own text
    assert names["cursor"] == 1
    assert names["sample"].key in ("bikes-street", "carphone")


@pytest.mark.parametrize("name", modules())
def test_examples_run_as_they_stand(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {package.name for package in PACKAGES}:
            raise
        pytest.skip(f"{error.name} is not installed")
    tests = [test for test in doctest.DocTestFinder().find(module, name) if test.examples]
    assert tests
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        test.globs["openuni"] = openuni
        runner.run(test, out=told.append)
    assert not runner.failures, "".join(told)


CLASSES = {"Asset", "Annotation", "Clip", "Dataset", "IterableDataset", "Record", "Sample", "Status"}
FACES = ("openuni", "unibench", "openuni_model", "openuni_pipelines")
PUBLIC = (*FACES, "openuni.sample", "openuni.registry", "openuni.assets", "openuni.shards.reader", "openuni.torch")


@pytest.mark.parametrize("name", PUBLIC)
def test_what_users_call_has_an_example(name: str) -> None:
    """Every public function, and the classes that users make or hold."""
    if name in ("openuni.torch", "openuni_model", "openuni_pipelines"):
        pytest.importorskip("torch")
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    for each in exported or vars(module):
        value = getattr(module, each)
        ours = exported is not None or getattr(value, "__module__", None) == name
        if ours and not each.startswith("_") and (inspect.isfunction(value) or each in CLASSES):
            assert "Example:\n" in inspect.getdoc(value), f"{name}.{each} has no example"
