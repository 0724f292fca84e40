"""Entries of OpenS2V-5M: the published form, and entries that are odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openuni.errors import CorruptDataError, PlanError
from openuni.sources import Request
from openuni.sources.base import Entry, Skipped
from openuni.sources.opens2v import OpenS2V, segmented

SPAN = (0.0, 2.0)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").touch()
    return folder


def entry(**other: Any) -> dict[str, Any]:
    about = {"path": "a.mp4", "fps": 25, "cut": [0, 50], "crop": [10, 60, 0, 40], "cap": ["a dog"]}
    return {"metadata": {**about, "resolution": {"height": 80, "width": 100}, **other}}


def read(videos: Path, written: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    file = videos.parent / "total_part1.json"
    file.write_bytes(written)
    found = list(OpenS2V().entries(Request(videos, file)))
    clips = {one.id: one for one in found if isinstance(one, Entry)}
    return clips, {one.id: one.reason for one in found if isinstance(one, Skipped)}


def test_a_real_entry_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "gm1252760410-365677148_part2.mp4").touch()
    file = shared_data / "meta/opens2v/step5/merge_final_json/dataset1.json"
    (clip,) = OpenS2V().entries(Request(tmp_path, file))
    assert isinstance(clip, Entry)
    fields = clip.fields
    assert fields["source_id"] == "gm1252760410-365677148_part2_step1-0-95_step2-0-95_step4_step5_step6"
    assert fields["caption"].startswith("Three women are seen outdoors on a grassy area. The woman in")
    assert (fields["start"], fields["end"]) == pytest.approx((0, 95 / 29.969999313354492))
    assert list(fields["crop"]) == [0, 0, 1280, 720]
    scores = {"tech": 2.082, "motion": 0.01223986130207777, "aesthetic": 5.070407867431641}
    assert dict(fields["scores"]) == pytest.approx(scores)
    assert fields["license"] == "CC-BY-4.0"


def test_an_odd_entry_is_left_out_and_the_others_are_read(videos: Path) -> None:
    """One of millions refused the whole file, or its span was dropped and the whole video taken."""
    entries: dict[str, Any] = {
        "plain": entry(),
        "no size": entry(resolution=None),
        "no caption": entry(cap=None),
        "whole frames": entry(crop=[10.0, 60.0, 0.0, 40.0]),
        "null": None,
        "number": 3,
        "no metadata": {"metadata": None},
        "cut of one": entry(cut=[5]),
        "cut of text": entry(cut="0-50"),
        "cut of nothing": entry(cut=[None, 50]),
        "crop of text": entry(crop=["a", 1, 2, 3]),
        "crop of three": entry(crop=[0, 1, 2]),
        "score of text": entry(tech="bad"),
        "path of numbers": entry(path=[1]),
        "crop outside": entry(crop=[10, 160, 0, 40]),
        "no rate": entry(fps=0),
        "gone": entry(path="b.mp4"),
    }
    clips, reasons = read(videos, b"\xef\xbb\xbf" + json.dumps(entries).encode())
    good = ["plain", "no size", "no caption", "whole frames"]
    assert sorted(clip.fields["source_id"] for clip in clips.values()) == sorted(good)
    assert all((clip.fields["start"], clip.fields["end"]) == SPAN for clip in clips.values())
    assert all(list(clip.fields["crop"]) == [10, 0, 60, 40] for clip in clips.values())
    odd = [name for name in entries if name not in good][:-3]
    assert reasons == {
        **dict.fromkeys(odd, "entry is malformed"),
        "crop outside": "crop outside the frame",
        "no rate": "no frame rate to cut by",
        "gone": "video missing",
    }


@pytest.mark.parametrize("written", [b"", b"[1]", b"<html>", json.dumps({"a": entry()}).encode()[:-9]])
def test_what_is_no_such_file_is_said(videos: Path, written: bytes) -> None:
    with pytest.raises(PlanError, match=r"total_part1\.json is not a file of OpenS2V-5M: .*; download it again"):
        read(videos, written)


def test_published_masks_are_read_as_pycocotools_reads_them(shared_data: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    file = shared_data / "meta/opens2v/step5/merge_final_json/dataset1.json"
    (frame,) = segmented(file)
    (about,) = json.loads(file.read_text()).values()
    things = about["annotation"]["mask_annotation"]["0"].values()
    assert frame.frame == 0
    assert frame.names[:3] == ("white lace top", "person", "park")
    assert frame.scores[:2] == (0.9921875, 0.9921875)
    assert frame.masks.shape == (len(things), 720, 1280)
    for mask, box, thing in zip(frame.masks, frame.boxes, things, strict=True):
        assert np.array_equal(mask, pycocotools.decode(thing))
        x, y, width, height = pycocotools.toBbox(thing)
        assert box.tolist() == [x, y, x + width, y + height]


@pytest.mark.parametrize("counts", ["0", "~~~", "", "é", "[c0U3[c00000"])
def test_broken_masks_name_their_entry(tmp_path: Path, counts: str) -> None:
    thing = {"size": [4, 6], "counts": counts, "score": [0.5]}
    annotation = {"mask_map": {"1": {"class_name": "dog"}}, "mask_annotation": {"0": {"1": thing}}}
    file = tmp_path / "total_part1.json"
    file.write_text(json.dumps({"none": {"metadata": {}}, "one": {"annotation": annotation}}))
    with pytest.raises(CorruptDataError, match=r"the masks of entry one are broken: .*; download it again"):
        list(segmented(file))
