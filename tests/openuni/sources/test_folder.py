"""The folder source: which files, which clips, which captions, and that nothing outside the folder is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from openuni import sources
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped
from openuni.video import Normalisation, decode_video, encode_video, normalise


@pytest.fixture(scope="session")
def film() -> bytes:
    """Two seconds of one picture, two of another, at 16 fps."""
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(2)]
    return encode_video([scenes[k // 32] for k in range(64)], 16.0)


def entries(request: Request) -> tuple[list[str], dict[str, str]]:
    """Ids of the rows, and reasons by id of the skipped ones."""
    found = list(sources.get("folder").entries(request))
    kept = [e.id for e in found if isinstance(e, Entry)]
    return kept, {s.id: s.reason for s in found if isinstance(s, Skipped)}


def clips(request: Request, name: str) -> list[Clip | Skipped]:
    return sources.get("folder").expand(Entry(name, {"key": Path(name).stem}), request)


def test_every_video_below_the_folder_is_a_row_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "a.txt", "b.mp4.JSON", "z/c.webm", "m/d/e.mov", "notes.txt", "z/a.JPG", "mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    kept, left_out = entries(Request(videos=tmp_path))
    assert kept == ["a.MKV", "b.mp4", "m/d/e.mov", "z/c.webm"]
    assert left_out == {
        "mp4": "not a video by its suffix (it has none)",
        "notes.txt": "caption file without a video of its name",
        "z/a.JPG": "not a video by its suffix (.jpg)",
    }


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.mp4").touch()
    (root / "real.mp4").touch()
    (root / "inner.mp4").symlink_to(root / "real.mp4")
    (root / "leaves.mp4").symlink_to(outside / "secret.mp4")
    (root / "broken.mp4").symlink_to(root / "nothing.mp4")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "itself.mp4").symlink_to("itself.mp4")
    kept, skipped = entries(Request(videos=root))
    assert kept == ["inner.mp4", "real.mp4"]
    assert skipped == {
        "leaves.mp4": "symbolic link that leaves the folder",
        "broken.mp4": "symbolic link that leaves the folder",
        "itself.mp4": "symbolic link that leaves the folder",
        "folder": "symbolic link to a folder",
        "loop": "symbolic link to a folder",
    }
    for name in ("../out/secret.mp4", "leaves.mp4", str(outside / "secret.mp4")):
        assert clips(Request(videos=root), name) == [Skipped(name, "path leaves the folder")]


def test_names_that_are_not_utf8_are_skipped_and_printable(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).touch()
    assert entries(Request(videos=tmp_path)) == ([], {r"bad\udcff.mp4": "file name is not UTF-8"})


def test_shots_become_clips_of_at_most_the_longest(tmp_path: Path, film: bytes) -> None:
    (tmp_path / "day one").mkdir()
    (tmp_path / "day one" / "film.mp4").write_bytes(film)
    request = Request(videos=tmp_path, clip_seconds=1.25, min_seconds=0.8)
    found = clips(request, "day one/film.mp4")
    made = [c for c in found if isinstance(c, Clip)]
    assert [(c.start, c.end) for c in made] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert [s for s in found if isinstance(s, Skipped)] == []
    assert {c.video_id for c in made} == {"day one/film.mp4"}
    assert len({c.key for c in made}) == 4
    assert all(c.source == "folder" for c in made)
    assert [normalise(c).frames for c in made] == [16, 16, 16, 16]
    assert clips(request, "day one/film.mp4") == found


def test_at_their_own_rate_clips_are_counted_in_frames_of_the_video(tmp_path: Path, film: bytes) -> None:
    """Two shots of 32 frames, and the same eight times as slow in 16: at most 30 frames make a clip, however long."""
    (tmp_path / "film.mp4").write_bytes(film)
    (tmp_path / "slow.mp4").write_bytes(encode_video(decode_video(film)[0][::2], 2.0, lossless=True))
    request = Request(videos=tmp_path, clip_seconds=81.0, min_seconds=0.0, frames=(8, 30))
    made = [normalise(c, Normalisation(None)) for c in clips(request, "film.mp4") if isinstance(c, Clip)]
    assert [(video.frames, video.fps, video.repeated_frames) for video in made] == [(16, 16.0, 0.0)] * 4
    made = [normalise(c, Normalisation(None)) for c in clips(request, "slow.mp4") if isinstance(c, Clip)]
    assert [(video.frames, video.fps, video.repeated_frames) for video in made] == [(16, 2.0, 0.0)] * 2


def test_a_rest_that_is_no_clip_is_said(tmp_path: Path, film: bytes) -> None:
    """Two seconds a shot: halves would be too short, so the longest clip is kept and the rest named."""
    (tmp_path / "film.mp4").write_bytes(film)
    found = clips(Request(videos=tmp_path, clip_seconds=1.5, min_seconds=1.1), "film.mp4")
    assert [(c.start, c.end) for c in found if isinstance(c, Clip)] == [(0.0, 1.5), (2.0, 3.5)]
    assert [s.reason for s in found if isinstance(s, Skipped)] == ["shot shorter than the shortest clip"] * 2


def test_a_broken_video_is_skipped_with_what_is_wrong(tmp_path: Path, film: bytes) -> None:
    (tmp_path / "cut.mp4").write_bytes(film[: len(film) // 2])
    (tmp_path / "text.mp4").write_text("no film")
    for name in ("cut.mp4", "text.mp4"):
        (skipped,) = clips(Request(videos=tmp_path), name)
        assert isinstance(skipped, Skipped)
        assert skipped.reason.startswith("unreadable video: ")
        assert str(tmp_path) not in skipped.reason


@pytest.mark.parametrize(
    ("suffix", "data", "caption"),
    [
        ("txt", b"A dog\nruns.\x00\x1b[31m\n", "A dog runs.[31m"),
        ("TXT", b"\xef\xbb\xbfcaf\xc3\xa9\r\nau lait", "café au lait"),
        ("mp4.txt", "gbk: 一只猫在草地上奔跑".encode("gbk"), "gbk: 一只猫在草地上奔跑"),
        ("txt", "A café in the ‘morning’".encode("cp1252"), "A café in the ‘morning’"),
        ("json", json.dumps({"caption": ["one", "two"]}).encode("utf-16"), "one"),
        ("json", json.dumps({"caption": "Ein Hund läuft."}).encode(), "Ein Hund läuft."),
        ("json", b'{"caption": "half \\ud800 pair"}', "half ? pair"),
    ],
)
def test_side_cars_give_the_caption_as_plain_text(
    tmp_path: Path, film: bytes, suffix: str, data: bytes, caption: str
) -> None:
    (tmp_path / "film.mp4").write_bytes(film)
    (tmp_path / f"film.{suffix}").write_bytes(data)
    made = [c for c in clips(Request(videos=tmp_path), "film.mp4") if isinstance(c, Clip)]
    assert {c.caption for c in made} == {caption}


@pytest.mark.parametrize(
    ("files", "caption", "said"),
    [
        ({"film.json": b'{"url": "x", "status": "success"}'}, "", ["film.json"]),
        ({"film.json": b'{"caption": null}', "film.txt": b"a dog runs"}, "a dog runs", ["film.json"]),
        ({"film.json": b'[{"iso": 100}]', "film.txt": b"a dog runs"}, "a dog runs", ["film.json"]),
        ({"film.json": b'{"caption": "a cat"}', "film.txt": b"a dog runs"}, "a cat", []),
    ],
)
def test_somebody_elses_side_car_costs_no_video_and_is_said(
    tmp_path: Path, film: bytes, files: dict[str, bytes], caption: str, said: list[str]
) -> None:
    for name, data in {"film.mp4": film, **files}.items():
        (tmp_path / name).write_bytes(data)
    found = clips(Request(videos=tmp_path), "film.mp4")
    assert [c.caption for c in found if isinstance(c, Clip)] == [caption] * 2
    assert [s.id for s in found if isinstance(s, Skipped)] == said


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("film.txt", b"a" * 70_000, "larger than 65536 bytes"),
        ("film.json", b"{", "not JSON"),
        ("film.json", b"[" * 60_000, "not JSON"),
        ("film.txt", b"\xef\xbb\xbfcaf\xe9", "marked as utf-8-sig, but is not"),
        ("film.txt", b"a dog \xff\xfe\x00\x81 runs", "encoding cannot be told"),
    ],
)
def test_a_side_car_that_cannot_be_used_is_said(
    tmp_path: Path, film: bytes, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / "film.mp4").write_bytes(film)
    (tmp_path / name).write_bytes(data)
    (skipped,) = clips(Request(videos=tmp_path), "film.mp4")
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason


def test_a_caption_outside_the_folder_is_not_read(tmp_path: Path, film: bytes) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (root / "film.mp4").write_bytes(film)
    (root / "film.txt").symlink_to(tmp_path / "secret.txt")
    assert clips(Request(videos=root), "film.mp4") == [
        Skipped("film.mp4", "caption file is a symbolic link that leaves the folder")
    ]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--videos"):
        entries(Request())
    with pytest.raises(PlanError, match="is not a folder"):
        entries(Request(videos=tmp_path / "nowhere"))


def test_the_development_clips_become_clips(shared_data: Path) -> None:
    request = Request(videos=shared_data / "videos")
    kept, skipped = entries(request)
    made = [c for name in kept for c in clips(request, name) if isinstance(c, Clip)]
    assert (len(kept), skipped) == (9, {})
    assert len({c.key for c in made}) == len(made) >= 12
    assert all(c.end is not None and 0.5 <= c.end - c.start <= 5.0625 + 1e-9 for c in made)


def test_keys_are_the_files_names_and_the_suffix_tells_two_apart(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "b.mkv", "sub/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    entries = [entry for entry in sources.get("folder").entries(Request(tmp_path)) if isinstance(entry, Entry)]
    assert {entry.id: entry.fields["key"] for entry in entries} == {
        "a.mp4": "a",
        "b.mp4": "b.mp4",
        "b.mkv": "b.mkv",
        "sub/a.mp4": "sub/a",
    }
