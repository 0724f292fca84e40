"""Names of 255 bytes, twins by case, names that begin with `-`, other scripts; no locale at all: taken, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import openuni
from openuni.shards import layout, plan

LONG = "n" * 251
NAMES = ["Cat", "cat", "-rf", "--help", LONG, "雨の中"]
LOCALES: dict[str, Mapping[str, str]] = {
    "none": {},
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def run(locale: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """A command as in a container, a cron job or a cluster's job, where nobody has set a language."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    program = Path(sys.executable).with_name("openuni")
    return subprocess.run([program, *map(str, arguments)], env=env | locale, capture_output=True)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_name_is_taken_or_refused_with_a_reason(
    tmp_path: Path, make_clips: Callable[..., Path], locale: str
) -> None:
    videos, out = make_clips(tmp_path / "videos", NAMES, frames=4, size=32), tmp_path / "d"
    options = ("--experts", "", "--workers", "0", "--min-free", "0", "--min-frames", "1", "--size", "32")
    done = run(LOCALES[locale], "build", "--source", "folder", "--videos", videos, *options, "--out", out)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    data = openuni.open(out)
    keys = {sample.key for sample in data}
    assert {"Cat-0000", "cat-0000", "-rf-0000", "--help-0000"} <= keys
    assert any(key.startswith("nnnn") for key in keys)
    refused = [row.reason for row in plan.skipped(out / layout.PLAN)]
    assert len(keys) + len(refused) == len(NAMES)
    assert refused == (["file name is not UTF-8"] if locale == "ASCII" else [])
    assert (data["Cat-0000"].rgb.frames != data["cat-0000"].rgb.frames).any()
    assert run(LOCALES[locale], "verify", out).returncode == 0
    assert run(LOCALES[locale], "stats", out, "--rows", "0").returncode == 0
    wrong = run(LOCALES[locale], "verify", tmp_path / "雨…")
    assert wrong.returncode in (1, 2)
    assert b"Traceback" not in wrong.stderr
