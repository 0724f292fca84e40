"""A column of numbers: added, built, read, verified, counted, exported, repaired as any other."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import openuni
from openuni.shards import columns, verify

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
pytestmark = pytest.mark.usefixtures("toys")


def ok(done: subprocess.CompletedProcess[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == status, done.stderr + done.stdout
    return done


def test_scores_are_added_and_built_to_the_same_bytes_and_every_command_takes_them(
    tmp_path: Path, build: Command, openuni_command: Command, make_clips: Callable[..., Path], digests: Digests
) -> None:
    videos = make_clips(tmp_path / "v", [f"c{number}" for number in range(5)])
    data, whole = tmp_path / "d", tmp_path / "whole"
    ok(build(videos, data, "dis"))
    tars = {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir()}
    ok(openuni_command("add", data, "scores", "--workers", 0, "--min-free", 0))
    assert {path: path.stat().st_mtime_ns for path in tars} == tars
    ok(build(videos, whole, "scores,dis"))
    assert sorted(openuni.open(data).manifest.columns) == sorted(openuni.open(whole).manifest.columns)
    assert {k: v for k, v in digests(data).items() if k.startswith(("shards", "index"))} == {
        k: v for k, v in digests(whole).items() if k.startswith(("shards", "index"))
    }

    opened = openuni.open(data)
    assert opened.columns == ["rgb", "flow"]
    assert opened.score_columns == ["scores"]
    sample = opened["c1"]
    assert sample["scores"]["motion"] == sample.record.scores["motion"] > 0
    assert sample["scores"]["letterbox"] == 0
    table = opened.table()
    assert [len(hashes) for hashes in table["scores.hashes"].to_pylist()] == [10] * 5
    assert opened.filter(lambda sample: sample.record.scores["motion"] > 1e9).columns == ["rgb", "flow"]

    ok(openuni_command("verify", data))
    stats = json.loads(ok(openuni_command("stats", data, "--json", "--rows", 2)).stdout)
    assert stats["columns"]["scores"]["present"] == 5
    ok(openuni_command("export", data, "--out", tmp_path / "x"))
    with tarfile.open(tmp_path / "x" / "000000.tar") as tar:
        note = json.load(tar.extractfile("c0.scores.json"))  # type: ignore[arg-type]
    assert note["scores"]["motion"] == opened["c0"].record.scores["motion"]
    assert "| scores | 5 of 5 |" in (data / "README.md").read_text()

    tar_path = data / "shards" / "000001.scores.tar"
    broken = bytearray(tar_path.read_bytes())
    broken[600] ^= 1
    tar_path.write_bytes(bytes(broken))
    ok(openuni_command("verify", data), 1)
    ok(openuni_command("verify", data, "--repair", "--workers", 0, "--min-free", 0))
    assert digests(data)["shards/000001.scores.tar"] == digests(whole)["shards/000001.scores.tar"]

    # Another flow: what was measured on the one before says so by its fingerprint.
    before = verify.manifest(data).columns["scores"]
    ok(openuni_command("drop", data, "flow"))
    ok(openuni_command("add", data, "scores", "--workers", 0, "--min-free", 0))
    assert verify.manifest(data).columns["scores"] != before
    assert "motion" not in openuni.open(data)["c1"]["scores"]
    assert columns.rows(data, 0, "scores")[0].hashes == columns.rows(whole, 0, "scores")[0].hashes
