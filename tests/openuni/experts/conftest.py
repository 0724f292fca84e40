"""The experts that look for people and things, set up once a file."""

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from openuni.experts.base import Expert
from openuni.experts.mediapipe_segmentation import MediapipeSegmentation
from openuni.experts.people import PeopleFinder

E = TypeVar("E", bound=Expert)


@pytest.fixture(scope="module")
def finder(asset: Callable[[str], Path]) -> Iterator[PeopleFinder]:
    yield from ready(PeopleFinder(), asset)


@pytest.fixture(scope="module")
def segmenter(asset: Callable[[str], Path]) -> Iterator[MediapipeSegmentation]:
    yield from ready(MediapipeSegmentation(), asset)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it; the asset cache is an empty folder."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    for variable in ("OPENUNI_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def ready(expert: E, asset: Callable[[str], Path]) -> Iterator[E]:
    pytest.importorskip("mediapipe")
    for pinned in expert.assets:
        asset(pinned.name)
    expert.setup()
    yield expert
    expert.teardown()
