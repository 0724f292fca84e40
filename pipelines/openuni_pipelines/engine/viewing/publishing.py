"""`openuni view --export`: the same page as a static folder for any web host; nothing of it needs a server of ours.

index.html look.css view.css view.js static.js     the page; `static.js` answers from the files below
data/about.json data/clips.json           what can be asked, and every clip with its numbers
data/KEY/clip.json thumbnail.jpg          a clip
data/KEY/SOURCE.COLUMN.RUN.jpegs          16 frames: each its length (32 bits, little-endian) and a JPEG
data/KEY/SOURCE.COLUMN.FRAME.values       the exact values of a frame: a gzipped npy
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError, PlanError
from openuni.modalities.densepose import PARTS, DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Segmentation
from openuni.storage import LocalStore, claim
from openuni_pipelines.engine.viewing.catalogue import Query
from openuni_pipelines.engine.viewing.clips import RUN, ClipFacts, Clips, Differences, wheel
from openuni_pipelines.engine.viewing.normals import Normals
from openuni_pipelines.engine.viewing.server import PAGE, POLICY, Viewer, finite

MOST_CLIPS = 2000
"""The page of an export holds its index in the browser, and with six columns of 81 frames they take some 150 GB."""
_WRITER = "view"


@dataclass(frozen=True, slots=True)
class Channel:
    """How a reading is made of a number at a pixel: `value · scale unit`, or the label of the value."""

    name: str
    at: int
    unit: str = ""
    scale: float = 1.0
    labels: dict[str, str] = field(default_factory=dict)


def publish(viewer: Viewer, out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write the page and all clips of a viewer to `out`, index.html last; the number of clips.

    Raises PlanError where `out` is somebody else's folder, or there are more than `MOST_CLIPS` clips.
    """
    total = len(viewer.catalogue)
    if total > MOST_CLIPS:
        raise PlanError(
            f"{viewer.clips.data.url} has {total:,} clips, and an export, which holds every frame of every column, at "
            f"most {MOST_CLIPS:,}: choose some with `openuni select --sample N --out chosen.json` and export that view"
        )
    claim(out)
    store = LocalStore(out)
    numbers = viewer.catalogue.find(Query())
    keys = [str(key) for key in viewer.catalogue.keys(numbers)]
    for done, key in enumerate(keys):
        progress(done, total)
        _publish_clip(viewer, store, key)
    store.put("data/clips.json", _encode(_rows(viewer)), _WRITER)
    about = json.loads(viewer.answer("/api/about", {}).body) | {"url": Path(viewer.clips.data.url).name}
    facets = json.loads(viewer.answer("/api/facets", {}).body)
    store.put("data/about.json", _encode({"about": about, "facets": facets}), _WRITER)
    _publish_page(store)
    progress(total, total)
    return total


def _publish_page(store: LocalStore) -> None:
    for name, (file, _) in PAGE.items():
        if name != "index.html":
            store.put(name, file.read_bytes(), _WRITER)
    store.put("data/wheel.jpg", wheel(), _WRITER)
    page = PAGE["index.html"][0].read_text("utf-8")
    policy = POLICY.replace("frame-ancestors 'none'", "").strip("; ")  # a meta element may not say that
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<script src="static.js" defer></script>\n'
    store.put("index.html", page.replace('<script src="view.js"', head + '<script src="view.js"').encode(), _WRITER)


def _rows(viewer: Viewer) -> list[dict[str, Any]]:
    catalogue = viewer.catalogue
    numbers = catalogue.find(Query())
    known = {name: catalogue.values(name) for name in catalogue.facets().numbers}
    rows = []
    for at, card in enumerate(catalogue.cards(numbers, "key")):
        values = {name: float(column[at]) for name, column in known.items()}
        rows.append(asdict(card) | {"numbers": values, **catalogue.details(at)})
    return rows


def _publish_clip(viewer: Viewer, store: LocalStore, key: str) -> None:
    facts = viewer.facts(key)
    folder = f"data/{key}"
    store.make_folder(folder)
    store.put(f"{folder}/thumbnail.jpg", viewer.clips.thumbnail(key), _WRITER)
    reads: dict[str, list[Channel]] = {}
    sources = {"": viewer.clips, **viewer.others}
    for place, (name, clips) in enumerate(sources.items()):
        for at, column in enumerate(facts.columns):
            if not column.present or column.source != name:
                continue
            try:
                reads[f"{place}.{column.name}"] = _publish_column(clips, store, key, column.name, f"{folder}/{place}")
            except OpenUniError as error:  # a damaged column says so, and the others are there
                facts.columns[at] = type(column)(column.name, name, False, str(error), column.expert, column.confidence)
    clip = asdict(facts) | {"flag": viewer.flags.reasons.get(key, "")}
    people = {name: asdict(clips.people(key)) for name, clips in sources.items() if _has_people(facts, name, clips)}
    shown = {name: [asdict(channel) for channel in channels] for name, channels in reads.items()}
    legends = {
        f"{place}.{column.name}": clips.legend(key, column.name)
        for place, (name, clips) in enumerate(sources.items())
        for column in facts.columns
        if column.present and column.source == name
    }
    camera = json.loads(viewer.answer("/api/camera", {"key": key}).body)["path"]
    whole = {"clip": clip, "reads": shown, "legends": legends, "people": people, "camera": camera}
    store.put(f"{folder}/clip.json", _encode(whole), _WRITER)


def _has_people(facts: ClipFacts, source: str, clips: Clips) -> bool:
    there = any(column.present and (column.name, column.source) == ("skeleton", source) for column in facts.columns)
    return there and not isinstance(clips, Differences)


def _publish_column(clips: Clips, store: LocalStore, key: str, column: str, stem: str) -> list[Channel]:
    length = clips.length(key, column)
    for run in range(0, length, RUN):
        store.put(f"{stem}.{column}.{run}.jpegs", clips.run(key, column, run, RUN), _WRITER)
    if not clips.readings(key, column, 0, 0, 0):
        return []
    channels: list[Channel] = []
    for number in range(length):
        array, channels = _values(clips.still(key, column, number))
        if array is None:
            return []
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        with store.create(f"{stem}.{column}.{number}.values", _WRITER, scratch=True) as file:
            file.write(gzip.compress(buffer.getvalue(), 4, mtime=0))
    return channels


def _values(value: Any) -> tuple[npt.NDArray[Any] | None, list[Channel]]:
    """The first frame of a value as `[H, W, C]`, and what its channels mean; none of a kind that is not known here."""
    match value:
        case Rgb():
            return value.frames[0], [Channel(name, at) for at, name in enumerate("RGB")]
        case Depth():
            names = {"metric": ("depth", "m"), "relative": ("depth", "relative")}
            name, unit = names.get(value.kind, ("disparity", "affine"))
            return value.values[0][..., None], [Channel(name, 0, unit)]
        case Flow():
            motion = [Channel("u", 0, "px"), Channel("v", 1, "px")]
            if not len(value.forward):  # the last frame has none
                _, height, width, _ = value.forward.shape
                return np.full((height, width, 2), np.nan, np.float32), motion
            return value.forward[0], motion
        case Segmentation():
            classes = {str(one.id): one.class_name for one in value.instances} | {"0": "background"}
            return value.ids[0][..., None], [Channel("id", 0), Channel("class", 0, labels=classes)]
        case DensePose():
            parts = {str(number): name for number, name in enumerate(PARTS)}
            charts = [Channel("U", 1, scale=1 / 255), Channel("V", 2, scale=1 / 255)]
            return value.values[0], [Channel("part", 0, labels=parts), *charts, Channel("person", 3)]
        case Normals():
            return value.vectors[0], [Channel(f"normal {name}", at) for at, name in enumerate("xyz")]
        case _:
            return None, []


def _encode(value: Any) -> bytes:
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False).encode()
