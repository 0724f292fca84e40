"""The experts that look for people and things, set up once a file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openuni.experts.mediapipe_segmentation import MediapipeSegmentation
from openuni.experts.people import PeopleFinder


@pytest.fixture(scope="module")
def finder(asset: Callable[[str], Path]) -> Iterator[PeopleFinder]:
    pytest.importorskip("mediapipe")
    for name in PeopleFinder.assets:
        asset(name)
    expert = PeopleFinder()
    expert.setup()
    yield expert
    expert.teardown()


@pytest.fixture(scope="module")
def segmenter(asset: Callable[[str], Path]) -> Iterator[MediapipeSegmentation]:
    pytest.importorskip("mediapipe")
    for name in MediapipeSegmentation.assets:
        asset(name)
    expert = MediapipeSegmentation()
    expert.setup()
    yield expert
    expert.teardown()
