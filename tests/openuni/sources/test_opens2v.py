"""Entries of OpenS2V-5M: the published form, and entries that are odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import openuni
from openuni import rle
from openuni.errors import AbsentModalityError, CorruptDataError, PlanError
from openuni.sample import Record
from openuni.sources import Request, opens2v
from openuni.sources.base import Entry, Skipped
from openuni.sources.opens2v import OpenS2V, segmented, segmented_in
from openuni.video import encode_video
from openuni_pipelines import cli

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
    (published,) = json.loads(file.read_text()).values()
    kept = json.loads(fields["source_fields"])
    assert kept["annotation"] == published["annotation"]
    assert kept["word_tags"] == published["word_tags"]
    said = ("path", "cap", "tech", "motion", "aesthetic")  # which the clip has as they are
    assert kept["metadata"] == {name: value for name, value in published["metadata"].items() if name not in said}


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
    overlaps = list[float]()
    for mask, box, thing in zip(frame.masks, frame.boxes, things, strict=True):
        assert np.array_equal(mask, pycocotools.decode(thing))
        x, y, width, height = pycocotools.toBbox(thing)
        overlaps.append(pycocotools.iou([[x, y, width, height]], [[*box[:2], *(box[2:] - box[:2])]], [0])[0, 0])
    # The detector's boxes, of which the segmenter made the masks; of "grassy area" it found far more than the box has.
    assert sorted(overlaps)[1] > 0.85
    assert frame.boxes[0].tolist() == [1.154022216796875, 570.5489501953125, 162.97991943359375, 717.748779296875]


@pytest.mark.parametrize("counts", ["0", "~~~", "", "é", "[c0U3[c00000"])
def test_broken_masks_name_their_entry(tmp_path: Path, counts: str) -> None:
    thing = {"size": [4, 6], "counts": counts, "score": [0.5]}
    annotation = {"mask_map": {"1": {"class_name": "dog"}}, "mask_annotation": {"0": {"1": thing}}}
    file = tmp_path / "total_part1.json"
    file.write_text(json.dumps({"none": {"metadata": {}}, "one": {"annotation": annotation}}))
    with pytest.raises(CorruptDataError, match=r"the masks of entry one are broken: .*; download it again"):
        list(segmented(file))


RNG = np.random.default_rng(0)
THING = np.zeros((100, 160), bool)
THING[20:70, 40:90] = True


def thing(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size])
    counts = rle.packed(np.array([0, *runs] if flat[0] else runs, np.uint32), *mask.shape)["counts"]
    return {"size": list(mask.shape), "counts": counts if isinstance(counts, str) else counts.decode(), "score": [0.9]}


def annotated(frame: int, masks: list[npt.NDArray[np.bool_]], box: list[float], **other: Any) -> dict[str, Any]:
    """An entry of a clip of 200×120 pixels at 16 frames a second."""
    about = {"path": "a.mp4", "fps": 16.0, "cut": [8, 32], "crop": [20, 180, 10, 110], "cap": ["a box"]}
    return {
        "metadata": {**about, "resolution": {"height": 120, "width": 200}, **other},
        "annotation": {
            "ann_frame_data": {"ann_frame_idx": frame, "annotations": [{"class_name": "box", "bbox": box}]},
            "mask_map": {str(n + 1): {"class_name": name} for n, name in enumerate(["box", "noise"][: len(masks)])},
            "mask_annotation": {str(frame): {str(n + 1): thing(mask) for n, mask in enumerate(masks)}},
        },
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[openuni.Dataset, str]:
    """A white box of 50×50 pixels moves right by four pixels a frame; in frame 12 it lies at (60, 30)."""
    folder = tmp_path_factory.mktemp("opens2v")
    frames = np.zeros((40, 120, 200, 3), np.uint8)
    for number, frame in enumerate(frames):
        left = 60 + 4 * (number - 12)
        frame[30:80, max(left, 0) : left + 50] = 255
    (folder / "a.mp4").write_bytes(encode_video(frames, 16.0))
    whole = np.zeros((120, 200), bool)
    whole[30:80, 60:110] = True
    noise, dense = RNG.random((100, 160)) < 0.3, RNG.random((300, 1000)) < 0.5
    entries = {
        "cropped": annotated(12, [THING, noise], [40.0, 20.0, 90.0, 70.0]),
        "whole": annotated(12, [whole], [60.0, 30.0, 110.0, 80.0]),
        "elsewhere": annotated(2, [THING], [40.0, 20.0, 90.0, 70.0]),
        "other_size": annotated(12, [THING[:50]], [40.0, 20.0, 90.0, 70.0]),
        "large": annotated(12, [dense], [0.0, 0.0, 1.0, 1.0]),
        "unmarked": {"metadata": annotated(12, [THING], [0.0, 0.0, 1.0, 1.0])["metadata"]},
    }
    (folder / "total_part1.json").write_text(json.dumps(entries))
    command = ["build", "--source", "opens2v", "--metadata", folder / "total_part1.json", "--videos", folder,
               "--experts", "dis", "--size", 50, "--workers", 0, "--out", folder / "d"]  # fmt: skip
    done = CliRunner().invoke(cli.openuni, [*map(str, command)])
    assert done.exit_code == 0, done.output
    return openuni.open(folder / "d"), done.output


@pytest.mark.parametrize("key", ["cropped", "whole"])
def test_masks_and_boxes_lie_on_their_things_in_the_built_clip(built: tuple[openuni.Dataset, str], key: str) -> None:
    """After cut, crop and resize; whether they are published of the cropped frame or of the whole."""
    sample = built[0][key]
    found = segmented_in(sample)
    assert sample.rgb.frames.shape[1:] == (50, 80, 3)
    assert (found.id, found.frame, found.names[0], found.scores[0]) == (key, 4, "box", 0.9)
    box = np.zeros((50, 80), bool)
    box[10:35, 20:45] = True
    assert np.array_equal(found.masks[0], box)
    assert found.boxes[0].tolist() == [20, 10, 45, 35]
    seen = sample.rgb.frames[found.frame].mean(-1) > 128
    assert np.array_equal(seen, box)
    for other in (3, 5):  # the frames beside it show it elsewhere
        assert (sample.rgb.frames[other].mean(-1) > 128).sum() > 0
        assert not np.array_equal(sample.rgb.frames[other].mean(-1) > 128, box)


def test_long_fields_are_in_the_sample_and_not_in_the_index(built: tuple[openuni.Dataset, str]) -> None:
    sample = built[0]["cropped"]
    assert set(sample.source_fields) == {"metadata", "annotation"}
    assert set(sample.record.source_fields) == {"metadata"}
    assert sample.record.source_fields["metadata"]["crop"] == [20, 180, 10, 110]
    assert set(built[0]["whole"].record.source_fields) == {"metadata", "annotation"}  # a plain mask is short


@pytest.mark.parametrize(
    ("key", "error", "sentence"),
    [
        (
            "elsewhere",
            AbsentModalityError,
            r"masks are of 0\.12 s .* does not show: it begins at 0\.50 s and has 24 fr",
        ),
        ("unmarked", AbsentModalityError, "its source says nothing of masks"),
        ("large", AbsentModalityError, "its source says nothing of masks"),
        ("other_size", CorruptDataError, "160×50 pixels, which is neither the crop nor the frame"),
    ],
)
def test_what_cannot_be_shown_in_the_clip_is_said(
    built: tuple[openuni.Dataset, str], key: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        segmented_in(built[0][key])


def test_masks_that_are_too_large_are_counted_and_the_rest_is_kept(built: tuple[openuni.Dataset, str]) -> None:
    data, printed = built
    assert "masks left out" in printed
    assert set(data["large"].source_fields["annotation"]) == {"ann_frame_data", "mask_map"}


@pytest.mark.parametrize(("fps", "rate"), [(16.0, 16.0), (29.97, 16.0), (24.0, 30.0), (60.0, 8.0)])
def test_the_clips_frame_is_the_one_that_shows_it_or_the_nearest(fps: float, rate: float) -> None:
    record = Record("a", 40, 8, 8, rate, start=7 / fps)
    shown = [int((record.start + at / rate) * fps + 1e-6) for at in range(40)]  # by `sample_frames`
    for frame in range(7, 7 + int(39 / rate * fps)):
        at = opens2v._frame_in(record, frame, fps)
        nearest = min(abs(one - frame) for one in shown)
        assert abs(shown[at] - frame) == nearest
