"""`stats`, `export` and the top of the command line: numbers, files, and one sentence for what cannot be done."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

import openuni
import openuni.errors
from openuni.modalities.depth import Depth
from openuni.modalities.openpose import draw_openpose
from openuni.modalities.rgb import Rgb
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation, Record
from openuni.shards import layout, writer
from openuni.shards.reader import Dataset
from openuni_pipelines.cli import openuni as command
from openuni_pipelines.engine import card
from openuni_pipelines.engine.counting import OTHER_REASONS, count

COLUMNS = {"rgb": "test-1", "depth": "test-1"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two shards of 40 clips, every other one without depth, each for a reason of its own."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for shard in range(2):
        keys = [f"clip-{shard}{number:02d}" for number in range(40)]
        for number, key in enumerate(keys):
            frames = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
            depth = Annotation(Depth(rng.uniform(1, 2, (2, 16, 16)).astype(np.float32), "metric"), 0.5)
            values = {"rgb": Annotation(Rgb(frames, 8.0)), "depth": f"because of {key}" if number % 2 else depth}
            writer.save_sample(root, shard, Record(key, 2, 16, 16, 8.0, caption="x"), values, COLUMNS, "run")
        writer.commit_shard(root, shard, keys, COLUMNS, "run")
    writer.write_manifest(root, {"source": "test"}, COLUMNS, 80, 2, "run")
    return root


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A dataset that has a manifest and nothing else yet."""
    writer.write_manifest(tmp_path / "planned", {"source": "test"}, COLUMNS, 8, 1, "run")
    return tmp_path / "planned"


def test_export_adds_openpose_pictures_where_somebody_has_a_skeleton(tmp_path: Path, root: Path) -> None:
    columns = {"rgb": "test-1", "skeleton": "test-1"}
    posed, frames = tmp_path / "posed", np.zeros((2, 48, 64, 3), np.uint8)
    points = np.full((2, 1, 17, 3), (np.nan, np.nan, 0), np.float32)
    points[:, 0, [5, 6, 7]] = [(24.5, 16.5, 1), (40.5, 16.5, 1), (24.5, 32.5, 1)]  # shoulders and an elbow
    boxes = np.tile(np.array([20, 12, 45, 37], np.float32), (2, 1, 1))
    skeleton = Skeleton(points, boxes, np.ones(1, np.int32), 48, 64)
    for key, found in (("one", Annotation(skeleton, 0.5)), ("none", "nobody")):
        values = {"rgb": Annotation(Rgb(frames, 8.0)), "skeleton": found}
        writer.save_sample(posed, 0, Record(key, 2, 48, 64, 8.0), values, columns, "run")
    writer.commit_shard(posed, 0, ["none", "one"], columns, "run")
    writer.write_manifest(posed, {"source": "test"}, columns, 2, 1, "run")
    result = run("export", posed, "--out", tmp_path / "out", "--columns", "rgb", "--openpose")
    assert result.exit_code == 0, result.output
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert sorted(tar.getnames()) == ["none.json", "none.mp4", "one.json", "one.mp4", "one.openpose.mp4"]
        video = tar.extractfile("one.openpose.mp4")
        assert video is not None
        with av.open(io.BytesIO(video.read())) as container:
            assert container.streams.video[0].average_rate == 8
            pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    np.testing.assert_array_equal(pictures, draw_openpose(skeleton))
    assert pictures.any()
    refused = run("export", root, "--out", tmp_path / "other", "--openpose")
    assert refused.exit_code != 0
    assert "has no column skeleton" in refused.output
    assert not (tmp_path / "other").exists()


def test_stats_counts_and_draws_a_png_whatever_it_is_called(root: Path, tmp_path: Path) -> None:
    result = run("stats", root, "--json", "--sheet", tmp_path / "new" / "sheet.txt", "--rows", 3)
    assert result.exit_code == 0, result.output
    stats = json.loads(result.stdout)
    assert (stats["samples"], stats["frames"], stats["captioned"]) == (80, 160, 80)
    assert stats["hours"] == pytest.approx(160 / 8 / 3600)
    assert stats["columns"]["depth"]["present"] == 40
    assert stats["columns"]["depth"]["confidence"] == 0.5
    picture = cv2.imread(str(tmp_path / "new" / "sheet.txt"))
    assert picture is not None
    assert picture.shape[1] == 2 * 228


def test_reasons_that_all_differ_do_not_grow_without_end(root: Path) -> None:
    absent = count(openuni.open(str(root))).columns["depth"].absent
    assert sum(absent.values()) == 40
    assert len(absent) == 33
    assert absent[OTHER_REASONS] == 8


def test_the_sheet_of_a_url_is_drawn_here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{root}/", "/looked-at/", recursive=True)
    monkeypatch.chdir(tmp_path)
    assert run("stats", "memory://looked-at").exit_code == 0
    assert (tmp_path / "contact_sheet.png").is_file()
    assert not (tmp_path / "memory:").exists()


def test_a_planned_data_set_is_empty_and_cannot_be_exported(planned: Path, tmp_path: Path) -> None:
    assert len(openuni.open(str(planned))) == 0
    assert json.loads(run("stats", planned, "--json").stdout)["samples"] == 0
    assert not (planned / "contact_sheet.png").exists()
    result = run("export", planned, "--out", tmp_path / "merged")
    assert result.exit_code == 1
    assert "no committed sample yet" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_a_shard_that_lacks_a_column_is_not_exported_as_if_it_were_whole(root: Path, tmp_path: Path) -> None:
    (root / layout.commit_name(1, "depth")).unlink()
    result = run("export", root, "--out", tmp_path / "merged")
    assert result.exit_code == 1
    assert "a column is not in 1 shard (the first is 000001)" in result.stderr
    assert not (tmp_path / "merged").exists()
    assert run("export", root, "--out", tmp_path / "merged", "--columns", "rgb").exit_code == 0
    assert len(list((tmp_path / "merged").glob("*.tar"))) == 2


def test_the_card_counts_what_is_there(root: Path) -> None:
    text = card.render(openuni.open(str(root)))
    assert "80 clips, 160 frames" in text
    assert "| depth | 40 of 80 | `test-1`" in text


def refusals() -> list[Callable[[Path, Path], tuple[object, ...]]]:
    return [
        lambda root, file: ("stats", file),
        lambda root, file: ("stats", file.parent / "nowhere"),
        lambda root, file: ("stats", "nosuch://place"),
        lambda root, file: ("stats", root, "--sheet", file / "below" / "sheet.png"),
        lambda root, file: ("export", root, "--out", file),
        lambda root, file: ("export", root, "--out", file / "below"),
        lambda root, file: ("export", root, "--out", "/proc/nowhere"),
        lambda root, file: ("export", root, "--columns", "thermal", "--out", file.parent / "x"),
        lambda root, file: ("build", "--source", "folder", "--videos", file.parent, "--out", file, "--workers", "0"),
        lambda root, file: (
            "build",
            "--source",
            "folder",
            "--videos",
            root,
            "--out",
            "/proc/nowhere",
            "--workers",
            "0",
        ),
    ]


@pytest.mark.parametrize("arguments", refusals())
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    arguments: Callable[[Path, Path], tuple[object, ...]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openuni.assets.is_cached", lambda name: True)  # the paths are refused before a model is read
    file = tmp_path / "file.txt"
    file.write_text("hello")
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments(root, file))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert len(sentence) > 30
    assert sorted(tmp_path.rglob("*")) == before
    assert file.read_text() == "hello"


def test_looking_loads_neither_torch_nor_ray(root: Path) -> None:
    for words in (["--help"], ["build", "--help"], ["status", root], ["stats", root, "--rows", "1"]):
        script = (
            "import sys\nfrom openuni_pipelines.cli import openuni\n"
            "try:\n    openuni(sys.argv[1:])\nexcept SystemExit as done:\n    assert done.code == 0, done\n"
            "heavy = {'torch', 'ray', 'onnxruntime', 'mediapipe', 'scenedetect'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)


def test_shards_whose_keys_do_not_ascend_are_refused(tmp_path: Path) -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for shard, key in enumerate(("b", "a")):
        values = {"rgb": Annotation(Rgb(frames, 8.0))}
        writer.save_sample(tmp_path, shard, Record(key, 2, 16, 16, 8.0), values, {"rgb": "t-1"}, "run")
        writer.commit_shard(tmp_path, shard, [key], {"rgb": "t-1"}, "run")
    writer.write_manifest(tmp_path, {}, {"rgb": "t-1"}, 2, 2, "run")
    with pytest.raises(openuni.errors.CorruptDataError, match="shard 1 begins at a, which does not follow b"):
        len(Dataset(str(tmp_path)))
