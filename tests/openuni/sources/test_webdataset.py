"""Tars of video2dataset and other WebDatasets: read where they lie, and not trusted."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("duckdb")

from openuni import sources, video
from openuni.errors import BadVideoError, PlanError
from openuni.sample import Clip
from openuni.shards import layout, plan
from openuni.sources import Entry, Request, Skipped
from openuni.sources.selection import Choice
from openuni.sources.webdataset import WebDataset
from openuni_pipelines.cli import openuni


def tar(path: Path, members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def about(**said: object) -> bytes:
    return json.dumps(said).encode()


def read(folder: Path, source: WebDataset | None = None) -> tuple[list[Clip], list[Skipped]]:
    source, request = source or WebDataset(), Request(videos=folder)
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for entry in source.entries(request):
        if isinstance(entry, Entry):
            clips += [clip for clip in source.expand(entry, request) if isinstance(clip, Clip)]
        else:
            skipped.append(entry)
    return clips, skipped


@pytest.fixture
def made(make_clips: Callable[..., Path], tmp_path: Path) -> Path:
    return make_clips(tmp_path / "made", ["one", "two"], frames=20)


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """As video2dataset writes them: two samples, and in another tar one whose video did not come."""
    folder = tmp_path / "shards"
    one, two = ((made / f"{name}.mp4").read_bytes() for name in ("one", "two"))
    tar(
        folder / "00000.tar",
        {
            "000000000.json": about(
                url="https://y/1", caption="A dog.", key="000000000", status="success", clip_sim=0.3
            ),
            "000000000.mp4": one,
            "000000000.txt": b"A dog, as the text says.\n",
            "000000001.json": about(url="https://y/1", caption="A cat.", clip_sim=0.7, Clip_Sim=9, big=10**400),
            "000000001.mp4": two,
        },
    )
    tar(folder / "00001.tar", {"000000002.json": about(caption="Nothing came.", error_message="HTTP 404")})
    return folder


def test_samples_become_clips_that_name_their_bytes(shards: Path, made: Path) -> None:
    clips, skipped = read(shards)
    assert [(clip.key, clip.caption, clip.video_id) for clip in clips] == [
        ("00000-000000000", "A dog, as the text says.", "https://y/1"),
        ("00000-000000001", "A cat.", "https://y/1"),
    ]
    assert [dict(clip.scores) for clip in clips] == [{"clip_sim": 0.3}, {"clip_sim": 0.7}]
    assert skipped == [Skipped("00001-000000002", "video missing")]
    assert sources.get("webdataset") == WebDataset()
    for clip, name in zip(clips, ("one", "two"), strict=True):
        assert video.probe(clip.video) == video.probe(made / f"{name}.mp4")
        same = Clip(clip.key, str(made / f"{name}.mp4"), end=clip.end)
        settings = video.Normalisation(short_side=48)
        assert video.normalise(clip, settings).mp4 == video.normalise(same, settings).mp4


def test_a_late_start_is_reached_by_seeking_in_a_tar(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "videos" / "sam2_05_default_juggle.mp4"
    folder = tmp_path / "shards"
    tar(folder / "a.tar", {"x/0.mp4": original.read_bytes(), "x/1.mp4": original.read_bytes()}, tarfile.GNU_FORMAT)
    clips, _ = read(folder)
    assert [clip.key for clip in clips] == ["a-x-0", "a-x-1"]
    inside = list(video.read_frames(clips[1].video, 1.0, 1.3, fps=16))
    outside = list(video.read_frames(original, 1.0, 1.3, fps=16))
    assert len(inside) == len(outside) > 3
    assert all(np.array_equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_rows_are_chosen_as_those_of_a_table(shards: Path) -> None:
    clips, _ = read(shards, WebDataset(choice=Choice(at_least=("clip_sim=0.5",))))
    assert [clip.caption for clip in clips] == ["A cat."]


def test_a_changed_tar_is_no_other_video(shards: Path, made: Path) -> None:
    clips, _ = read(shards)
    tar(shards / "00000.tar", {"000000000.txt": b"x", "000000000.mp4": (made / "two.mp4").read_bytes()})
    for clip in clips:
        with pytest.raises(BadVideoError, match="the tar has changed since it was planned"):
            video.probe(clip.video)
    (shards / "00000.tar").unlink()
    with pytest.raises(BadVideoError, match="there is no such file"):
        video.probe(clips[0].video)


def test_hostile_and_broken_tars_are_said(made: Path, tmp_path: Path) -> None:
    one = (made / "one.mp4").read_bytes()
    folder = tmp_path / "shards"
    members = {"../../etc/x.mp4": one, "/abs.mp4": one, "deep.json": b"[" * 100_000, "deep.mp4": one,
               "list.json": b"[1]", "list.mp4": one, "big.txt": b"a" * (1 << 21), "big.mp4": one,
               "new\nline.mp4": one}  # fmt: skip
    tar(folder / "a.tar", members)
    with tarfile.open(folder / "links.tar", "w") as archive:
        info = tarfile.TarInfo("link.mp4")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    whole = tar(folder / "cut.tar", {"first.mp4": one, "second.mp4": one}).read_bytes()
    (folder / "cut.tar").write_bytes(whole[: 512 + len(one) + 1500])
    (folder / "noise.tar").write_bytes(b"noise" * 1000)
    clips, skipped = read(folder)
    assert [clip.key for clip in clips] == [
        "a-big", "a-deep", "a-list", "cut-first",
    ]  # fmt: skip
    reasons = {(row.id, row.reason.partition(":")[0]) for row in skipped}
    assert {
        ("a-deep.json", "not a JSON object"),
        ("a-list.json", "not a JSON object"),
        ("a-big.txt", "larger than 1048576 bytes"),
        ("noise.tar", "tar cannot be read on"),
        ("cut.tar", "tar cannot be read on"),
    } <= reasons
    assert sum(reason == "member's name leaves the tar's folder" for _, reason in reasons) == 3


def test_a_folder_without_tars_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "00000.tar.gz").touch()
    with pytest.raises(PlanError, match="compressed tars must be uncompressed"):
        WebDataset().check(Request(videos=tmp_path))


def test_a_dataset_is_built_from_tars(shards: Path, tmp_path: Path) -> None:
    command = ["build", "--source", "webdataset", "--videos", shards, "--experts", "dis", "--size", 48, "--workers", 0,
               "--out", tmp_path / "d"]  # fmt: skip
    built = CliRunner().invoke(openuni, [*map(str, command)])
    assert built.exit_code == 0, built.output
    assert [clip.key for clip in plan.Plan(tmp_path / "d" / layout.PLAN)] == ["00000-000000000", "00000-000000001"]
    verified = CliRunner().invoke(openuni, ["verify", str(tmp_path / "d")])
    assert verified.exit_code == 0, verified.output
    assert sorted(path.name for path in shards.iterdir()) == ["00000.tar", "00001.tar"]


def test_the_rest_of_a_samples_json_is_kept(made: Path, tmp_path: Path) -> None:
    """Lists and objects too; what the clip says already is not repeated, and NaN is null."""
    film, deep = (made / "one.mp4").read_bytes(), "[" * 200 + "]" * 200
    said = {
        "url": "https://y/1",
        "caption": "Theirs.",
        "license": "CC0-1.0",
        "key": "000000000",
        "width": 640,
        "clip_sim": 0.3,
        "far": 2**60 + 1,
        "ok": True,
        "nan": float("nan"),
        "source_fields": 7,
        "clips": [[0.0, 4.5]],
        "subtitles": {"en": ["hello", "wörld"]},
    }
    members = {"a.json": json.dumps(said).encode(), "a.txt": b"Ours.", "a.mp4": film}
    tar(tmp_path / "s" / "0.tar", {**members, "b.json": b'{"x": 1, "deep": ' + deep.encode() + b"}", "b.mp4": film})
    (a, b), skipped = read(tmp_path / "s")
    kept = {
        name: said[name] for name in ("caption", "key", "width", "far", "ok", "source_fields", "clips", "subtitles")
    }
    assert a.source_fields == {**kept, "nan": None}
    assert (a.video_id, a.license, a.caption) == ("https://y/1", "CC0-1.0", "Ours.")
    assert (b.source_fields, b.scores) == ({}, {"x": 1.0})
    assert [(one.id, one.reason) for one in skipped] == [
        ("0-b.json", "source fields lie too deep in each other; they were left out")
    ]
