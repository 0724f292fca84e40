"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from openuni import assets
from openuni.shards import facts
from openuni.video import encode_video
from tests.s3 import ENVIRONMENT, Server, serving

PLUGINS = Path(__file__).parent / "plugins"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, and the longest file before all: of two processes none ends long after the other."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, item.path.name != "test_kill.py"))


@pytest.fixture(autouse=True)
def own_facts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of URLs is no test's home's."""
    monkeypatch.setattr(facts, "near_folder", lambda: tmp_path_factory.getbasetemp() / "facts-of-urls")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips and annotated frames that lie beside a development checkout; users do not have them."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: tests on the development clips are skipped")
    return folder


@pytest.fixture(scope="session")
def asset() -> Callable[[str], Path]:
    """`asset(name)`: its verified file. Skips where nobody has fetched it; a file that is not the pinned one fails."""

    def path(name: str) -> Path:
        pinned = assets.get(name)
        if not assets.place(pinned).is_file():
            pytest.skip(f"asset {name} is not on this machine; `openuni assets fetch {name}` brings it")
        return assets.path(pinned)

    return path


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the toy distribution: a sixth modality, toy experts and a toy source, found through entry points.

    PYTHONPATH carries it into processes that a test starts.
    """
    monkeypatch.syspath_prepend(str(PLUGINS))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{PLUGINS}{os.pathsep}{inherited}" if inherited else str(PLUGINS))


@pytest.fixture(scope="session")
def make_clips() -> Callable[..., Path]:
    """`make_clips(folder, names, frames=…, size=…)`: small real mp4 files, each its own moving picture."""

    def make(folder: Path, names: list[str], *, frames: int = 10, size: int = 48) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            (folder / f"{name}.mp4").write_bytes(encode_video(moving_picture(number, frames, size), 16.0))
        return folder

    return make


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An S3 server with an empty bucket; the environment points this process and its children to it."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def moving_picture(seed: int, frames: int, size: int) -> np.ndarray:
    """A square over a smooth random texture, uint8 `[T, size, size·4/3, 3]`; it moves by one pixel a frame."""
    rng = np.random.default_rng(seed)
    width = size * 4 // 6 * 2
    y, x = np.mgrid[:size, :width]
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.05, 0.6, (3, 3))]
    texture = np.stack(waves, axis=-1) * 60 + 128
    clip = np.repeat(texture[None], frames, axis=0)
    for t in range(frames):
        at = 4 + t
        clip[t, at : at + size // 4, at : at + size // 4] = rng.uniform(150, 255, 3) if t == 0 else clip[0, 4, 4]
    return clip.astype(np.uint8)
