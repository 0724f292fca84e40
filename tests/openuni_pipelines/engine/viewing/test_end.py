"""The end of the viewer: answers under way are given, lest a thread in OpenCV abort the process as Python ends."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import pytest

from openuni_pipelines.engine.viewing.opening import open_viewer
from openuni_pipelines.engine.viewing.server import open_in_background


def test_an_answer_under_way_is_given_before_the_server_ends(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = open_viewer([str(dataset)], None, None, None, 0)
    begun, may_end, plain = threading.Event(), threading.Event(), viewer.answer

    def slow(path: str, arguments: dict[str, str]) -> object:
        begun.set()
        assert may_end.wait(60)
        return plain(path, arguments)

    monkeypatch.setattr(viewer, "answer", slow)
    serving = open_in_background(viewer)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(urllib.request.urlopen(viewer.url).status))
    asking.start()
    assert begun.wait(60)
    threading.Thread(target=viewer.close, daemon=True).start()
    serving.join(0.5)
    assert serving.is_alive()
    may_end.set()
    serving.join(60)
    asking.join(60)
    assert not serving.is_alive()
    assert answers == [200]
