"""The published OpenUni: parts of the hub's layout over HTTP, joined by id, read out of their colours."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

pytest.importorskip("huggingface_hub")

import openuni
from openuni.errors import AbsentModalityError, AssetError, PlanError
from openuni.modalities.flow import Flow, FlowModality
from openuni.modalities.rgb import Rgb, RgbModality
from openuni.shards import columns, results
from openuni.sources import pictures
from openuni.sources.pictures import NotInvertibleError
from openuni.sources.published import Tars, TrainingTable
from openuni.video import encode_video
from openuni_pipelines.cli import openuni as command
from openuni_pipelines.engine import published
from openuni_pipelines.engine.published import import_published
from openuni_pipelines.engine.removing import RemoveConfig, remove

T, H, W = 5, 96, 128
Frames = npt.NDArray[np.uint8]
COMMIT = "0123abcd" * 5


@dataclass(frozen=True, slots=True)
class Clip:
    """A made clip, what is true of it, and its films in colours."""

    rgb: Frames
    disparity: npt.NDArray[np.float32]
    motion: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]

    def films(self) -> dict[str, Frames]:
        depth = cv2.applyColorMap(np.rint(self.disparity * 255).astype(np.uint8).reshape(-1, W), cv2.COLORMAP_TURBO)
        fastest = np.hypot(*np.moveaxis(self.motion, -1, 0)).max()
        shown = FlowModality().show(Flow(self.motion / fastest * W / 8 * 0.999))
        colours = np.array([[0, 0, 0], [220, 20, 60], [40, 60, 230]], np.uint8)
        return {
            "rgb": self.rgb,
            "depth": cv2.cvtColor(depth, cv2.COLOR_BGR2RGB).reshape(T, H, W, 3),
            "raft": shown,
            "segmentation": colours[self.ids],
            "skeleton": colours[self.ids],
        }


def made(seed: int) -> Clip:
    """A textured square that moves over a ground that moves the other way."""
    rng = np.random.default_rng(seed)

    def texture(height: int, width: int) -> Frames:
        noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 1.5)
        return cv2.normalize(noise, np.empty_like(noise), 0, 255, cv2.NORM_MINMAX)

    ground, square = texture(H, W + 40), texture(40, 40)
    rgb, ids = np.zeros((T, H, W, 3), np.uint8), np.zeros((T, H, W), np.int64)
    motion = np.zeros((T, H, W, 2), np.float32)
    for t in range(T):
        place = (slice(20 + t, 60 + t), slice(30 + 3 * t, 70 + 3 * t))
        rgb[t], motion[t] = ground[:, 2 * t : 2 * t + W], (-2, 0)
        rgb[t][place], motion[t][place], ids[t][place] = square, (3, 1), 1
        ids[t, 70:90, 5:35] = 2
    disparity = np.where(ids == 1, 0.9, np.linspace(0.1, 0.6, H)[None, :, None]).astype(np.float32)
    return Clip(rgb, disparity, motion[:-1], ids)


def mp4(frames: Frames) -> bytes:
    return encode_video(frames, 16.0)


def tar_gz(films: dict[str, bytes]) -> bytes:
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, data in films.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(tarred.getvalue(), 1)


@dataclass
class Server:
    """A data set on the hub. `cut_off` names parts of which the next answers end in the middle, and how many do."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_off: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            if self.path.startswith("/api/datasets/"):
                siblings = [{"rfilename": name, "size": len(body)} for name, body in served.files.items()]
                self.reply(json.dumps({"id": "kling/OpenUni", "sha": COMMIT, "siblings": siblings}).encode())
                return
            name = self.path.removeprefix(f"/datasets/kling/OpenUni/resolve/{COMMIT}/")
            served.asked.append(name)
            body = served.files[name]
            if served.cut_off.get(name, 0):
                served.cut_off[name] -= 1
                self.reply(body, len(body) * 2 // 3)
            else:
                self.reply(body)

        def reply(self, body: bytes, most: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:most])

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{http.server_port}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield served
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    return {f"clip.{n}": made(n) for n in range(5)}


@pytest.fixture(scope="module")
def films(clips: dict[str, Clip]) -> dict[str, dict[str, bytes]]:
    """By id and view, as mp4."""
    return {id: {view: mp4(film) for view, film in clip.films().items()} for id, clip in clips.items()}


def layout_of(films: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """Two parts a view; views come in other orders than RGB, and lack a clip, or have one too many."""
    ids = list(films)
    orders = {"rgb": ids, "depth": ids[::-1], "raft": ids[2:] + ids[:1], "segmentation": ids, "skeleton": ids[1:]}
    files = {"README.md": b"x", "train/Other/rgb/a_part000.tar.gz": tar_gz({"o.mp4": films[ids[0]]["rgb"]})}
    for view, order in orders.items():
        for number, some in enumerate((order[:3], order[3:])):
            parts = {f"deep/{id}.mp4": films[id][view] for id in some}
            if (view, number) == ("depth", 0):
                parts |= {"deep/stranger.mp4": films[ids[0]][view], "deep/notes.txt": b"not a film"}
            if (view, number) == ("rgb", 1):
                parts["deep/broken.mp4"] = b"no video"
            files[f"train/Koala/{view}/Koala_{view}_part{number:03d}.tar.gz"] = tar_gz(parts)
    return files


def test_parts_of_the_hub_become_a_dataset(
    server: Server, clips: dict[str, Clip], films: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    server.files = layout_of(films)
    part = "train/Koala/raft/Koala_raft_part000.tar.gz"
    server.cut_off = {part: 1}  # tried again at once
    captions = tmp_path / "captions.csv"
    captions.write_text('video,prompt\nx/clip.1.mp4,"A square, moving"\n')
    done = CliRunner().invoke(
        command,
        ["sources", "import", "kling/OpenUni", "--only", "Koala", "--captions", str(captions), "--shard-size", "2",
         "--out", str(tmp_path / "d")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert server.asked.count(part) == 2
    assert not [name for name in server.asked if "Other" in name]
    data = openuni.open(tmp_path / "d")
    assert [sample.record.source_id for sample in data] == list(clips)
    first, second, *_ = data
    assert second.caption == "A square, moving"
    for sample in data:
        truth = clips[sample.record.source_id]
        stored = (tmp_path / "d" / "shards").iterdir()
        assert films[sample.record.source_id]["rgb"] in b"".join(p.read_bytes() for p in stored if ".rgb." in p.name)
        assert sample.depth.kind == "affine_disparity"
        assert np.abs(sample.depth.values - truth.disparity).mean() < 0.01
        for id in (1, 2):
            here = truth.ids == id
            most = np.bincount(sample.segmentation.ids[here]).argmax()
            there = sample.segmentation.ids == most
            assert most > 0
            assert (here & there).sum() / (here | there).sum() > 0.95
    error = np.hypot(*np.moveaxis(first.flow.forward - clips["clip.0"].motion, -1, 0))
    assert np.nanmedian(error) < 0.35
    assert first.statuses["flow"].present
    assert second.statuses["flow"].reason == "none was published"
    with pytest.raises(AbsentModalityError, match=r"kept as a picture in pictures/000000\.skeleton\.tar: how skeleton"):
        second.skeleton  # noqa: B018
    with tarfile.open(tmp_path / "d" / "pictures" / "000000.skeleton.tar") as tar:
        (name,) = tar.getnames()
        kept = tar.extractfile(name)
        assert kept is not None
        assert (name, kept.read()) == (f"{second.key}.skeleton.mp4", films["clip.1"]["skeleton"])
    assert "depth without a clip in RGB" in done.output
    assert "unreadable video" in done.output
    assert not (tmp_path / "d" / published.STATE).exists()
    assert not (tmp_path / "d" / "work").exists()
    checked = CliRunner().invoke(command, ["verify", str(tmp_path / "d"), "--workers", "0"])
    assert checked.exit_code == 0, checked.output


def test_an_import_goes_on_where_it_was_cut_off(
    server: Server, films: dict[str, dict[str, bytes]], folder: Path, tmp_path: Path
) -> None:
    server.files = layout_of(films)
    last = "train/Koala/depth/Koala_depth_part001.tar.gz"
    server.cut_off = {last: 3}
    with pytest.raises(AssetError, match=r"depth_part001.tar.gz cannot be read to its end .*; run the same command"):
        import_published(Tars("kling/OpenUni", "Koala"), "OpenUni", tmp_path / "d", shard_size=2)
    with pytest.raises(PlanError, match="another --shard-size"):
        import_published(Tars("kling/OpenUni", "Koala"), "OpenUni", tmp_path / "d", shard_size=3)
    server.asked.clear()
    made = import_published(Tars("kling/OpenUni", "Koala"), "OpenUni", tmp_path / "d", shard_size=2)
    assert server.asked[0] == last  # what was read to its end is not asked for again
    assert made.values == {"depth": 5, "flow": 4, "segmentation": 5, "skeleton": 0}
    assert made.pictures == {"depth": 0, "flow": 0, "segmentation": 0, "skeleton": 4}
    assert_same(tmp_path / "d", folder / "whole")
    with pytest.raises(PlanError, match="holds a dataset already"):
        import_published(Tars("kling/OpenUni", "Koala"), "OpenUni", tmp_path / "d", shard_size=2)


@pytest.fixture(scope="module")
def folder(films: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts in `source`, and what they become in `whole`."""
    root = tmp_path_factory.mktemp("published")
    for name, body in layout_of(films).items():
        (root / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "source" / name).write_bytes(body)
    import_published(Tars(str(root / "source"), "Koala"), "OpenUni", root / "whole", shard_size=2)
    return root


@pytest.mark.parametrize("stop_at", [1, 3, 8, 15, 27])
def test_an_import_that_is_stopped_anywhere_ends_the_same(
    folder: Path, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run dies before it stores or commits for the n-th time."""
    source, steps = folder / "source", 0

    def dying(function: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise RuntimeError("killed")
            return function(*arguments)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(results, "save", dying(results.save))
        patched.setattr(columns, "commit", dying(columns.commit))
        with pytest.raises(RuntimeError, match="killed"):
            import_published(Tars(str(source), "Koala"), "OpenUni", tmp_path / "d", shard_size=2)
    import_published(Tars(str(source), "Koala"), "OpenUni", tmp_path / "d", shard_size=2)
    assert_same(tmp_path / "d", folder / "whole")


def test_a_removed_clip_leaves_no_film_that_was_kept_as_it_was(
    folder: Path, films: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(folder / "whole", tmp_path / "d"))
    tars = sorted(path.name for path in (root / "pictures").iterdir())
    before = {(path.name, name): data for path in (root / "pictures").iterdir() for name, data in members(path)}
    gone = next(sample.record for sample in openuni.open(root) if sample.record.source_id == "clip.1")
    found = remove(root, RemoveConfig(source_ids=["clip.1"]))
    assert found.still_named_in == []
    others = [film for id, views in films.items() if id != "clip.1" for film in views.values()]
    pieces = [film[len(film) // 2 :][:64] for film in films["clip.1"].values()]
    needles = [gone.key.encode(), *(piece for piece in pieces if not any(piece in film for film in others))]
    assert len(needles) > 1  # most films of these clips look alike; the tars are compared below
    for path in root.rglob("*"):
        assert not path.is_file() or not any(needle in path.read_bytes() for needle in needles), path
    after = {(path.name, name): data for path in (root / "pictures").iterdir() for name, data in members(path)}
    assert after == {place: data for place, data in before.items() if not place[1].startswith(f"{gone.key}.")}
    assert len(after) == len(before) - 1
    assert len(list((root / "pictures").iterdir())) < len(tars)  # no tar stays that is empty


def members(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar) as opened:
        return [(one.name, content.read()) for one in opened if (content := opened.extractfile(one)) is not None]


def assert_same(made: Path, whole: Path) -> None:
    for folder in ("shards", "pictures"):
        for path in (whole / folder).iterdir():
            assert (made / folder / path.name).read_bytes() == path.read_bytes()


def test_the_training_table(films: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    for id, views in films.items():
        for view in ("rgb", "depth"):
            (tmp_path / view).mkdir(exist_ok=True)
            (tmp_path / view / f"{id}.mp4").write_bytes(views[view])
    table = tmp_path / "train.csv"
    rows = "".join(f'rgb/clip.{n}.mp4,"It, {n}",depth/clip.{n}.mp4,,\n' for n in range(3))
    table.write_text(f"video,prompt,depth,densepose,raft\n{rows}rgb/clip.4.mp4,x,../clip.4.mp4,,\nrgb/gone.mp4,x,,,\n")
    made = import_published(TrainingTable(table, tmp_path), "UnityVideo", tmp_path / "d")
    data = openuni.open(tmp_path / "d")
    assert [sample.caption for sample in data] == ["It, 0", "It, 1", "It, 2", "x"]
    assert [sample.statuses["depth"].present for sample in data] == [True, True, True, False]
    assert made.left_out == {
        "depth is missing, or outside the folder of videos": 1,
        "video is missing, or outside the folder of videos": 1,
    }


def test_the_speed_of_something_small_is_right() -> None:
    """A search at half the resolution told a figure of 25 by 40 px to be a third as fast as it was."""
    rng, (height, width), step = np.random.default_rng(0), (180, 320), (3, 1)

    def smooth(height: int, width: int) -> Frames:
        noise = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 4)
        return np.clip((noise - 127.5) * 4 + 127.5, 0, 255).astype(np.uint8)

    ground, figure = smooth(height, width), smooth(40, 25)
    rgb = np.repeat(ground[None], 4, axis=0)
    motion = np.zeros((3, height, width, 2), np.float32)
    for t in range(4):
        place = (slice(70 + step[1] * t, 110 + step[1] * t), slice(100 + step[0] * t, 125 + step[0] * t))
        rgb[t][place] = figure
        if t < 3:
            motion[t][place] = step
    film = FlowModality().show(Flow(motion / np.hypot(*step) * width / 8 * 0.999))
    found = pictures.flow(film, rgb).value.forward
    assert np.median(np.hypot(*np.moveaxis(found, -1, 0))[motion[..., 0] > 0]) == pytest.approx(
        np.hypot(*step), rel=0.1
    )


def test_films_that_are_no_maps_are_refused() -> None:
    natural = made(0).rgb
    for view in ("depth", "segmentation", "flow", "densepose"):
        with pytest.raises(NotInvertibleError):
            pictures.invert(view, natural, natural)


@pytest.mark.parametrize("how", ["turbo", "inferno", "magma", "plasma", "viridis", "jet", "spectral", "grey"])
def test_depth_is_read_by_the_map_that_it_was_drawn_with(how: str) -> None:
    truth = made(1).disparity
    ramp = dict(pictures._ramps())[how]
    film = np.rint(ramp[np.rint(truth * 255).astype(int)] * 255).astype(np.uint8)
    value = RgbModality().decode(RgbModality().encode(Rgb(film, 16.0)))  # through H.264
    found = pictures.depth(value.frames)
    assert found.how == how
    assert np.abs(found.value.values - truth).mean() < 0.01
