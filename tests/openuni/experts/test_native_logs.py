"""What native libraries log stays off the terminal; whatever else is written there does not."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openuni.experts import native_logs
from openuni.experts.base import DecodedClip
from openuni.experts.mediapipe_segmentation import MediapipeSegmentation
from openuni.experts.people import PeopleFinder
from tests.openuni.experts.clips import clip

CHATTER = (
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    b"WARNING: Logging before InitGoogle() is written to STDERR\n"
    b"W0000 00:00:1795849418.798014    4484 inference_feedback_manager.cc:121] Feedback manager requires a model\n"
    b"I20240101 10:00:00.123456 11 gl_context.cc:1] hello\n"
)


def test_errors_and_what_python_writes_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with native_logs.hidden():
        os.write(2, CHATTER + b"E0000 00:00:1.000001 7 graph.cc:1] it is broken\n")
        print("a traceback of a thread", file=sys.stderr)
    shown = capfd.readouterr().err.splitlines()
    assert sorted(shown) == ["E0000 00:00:1.000001 7 graph.cc:1] it is broken", "a traceback of a thread"]


def test_an_exception_passes_and_the_terminal_is_back(capfd: pytest.CaptureFixture[str]) -> None:
    @native_logs.hidden()
    def setup() -> None:
        os.write(2, CHATTER + b"why\n")
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        setup()
    os.write(2, CHATTER[:5])
    assert capfd.readouterr().err == "why\nINFO:"


def test_no_descriptor_is_left_open() -> None:
    def opened() -> int:
        probe = os.dup(2)
        os.close(probe)
        return probe

    before = opened()
    for _ in range(5):
        with native_logs.hidden():
            pass
    assert opened() == before


def test_mediapipe_is_silent_from_its_start_to_the_first_person(
    shared_data: Path, asset: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mediapipe")
    frames = clip(shared_data / "videos" / "mmaction2_demo_skeleton.mp4", 1, 16.0)
    finder, segmenter = PeopleFinder(), MediapipeSegmentation()
    for pinned in (*finder.assets, *segmenter.assets):
        asset(pinned.name)
    capfd.readouterr()
    finder.setup()
    people = finder.annotate(DecodedClip("a", frames, 16.0, {}))
    assert people.value.count > 0
    segmenter.setup()
    segmenter.annotate(DecodedClip("a", frames, 16.0, {"people": people}))
    finder.teardown()
    segmenter.teardown()
    assert capfd.readouterr() == ("", "")
