"""The experts that look for people and things, set up once a file."""

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


def ready(expert: E, asset: Callable[[str], Path]) -> Iterator[E]:
    pytest.importorskip("mediapipe")
    for pinned in expert.assets:
        asset(pinned.name)
    expert.setup()
    yield expert
    expert.teardown()
