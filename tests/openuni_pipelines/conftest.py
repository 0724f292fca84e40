"""The commands as a user runs them, on small real clips and the toy plug-ins."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openuni.shards import layout

PLUGINS = Path(__file__).parents[1] / "plugins"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def openuni_command(tmp_path: Path) -> Command:
    """`openuni_command("build", …, env={…})` in a process of its own; stdout and stderr come back as text."""

    def command(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> object:
        return subprocess.run(
            [Path(sys.executable).with_name("openuni"), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(PLUGINS), "OMP_NUM_THREADS": "1", "COLUMNS": "400"} | (env or {}),
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return command  # type: ignore[return-value]


@pytest.fixture
def build(openuni_command: Command) -> Command:
    """`build(videos, out, experts, *more)`: `openuni build --source toy`, in this process unless `ray=True`."""

    def run(
        videos: Path, out: Path, experts: str, *more: object, ray: bool = False, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        mode = () if ray else ("--workers", 0)
        options = ("--source", "toy", "--videos", videos, "--out", out, "--experts", experts, "--min-free", 0)
        return openuni_command("build", *options, "--shard-size", 4, *mode, *more, env=env)

    return run  # type: ignore[return-value]


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a dataset, by path: temporary files, locks and what lies in `work/` would show.

    Left out are what tells of runs (log, progress, failures), the bytes of commit records, which name theirs, and of
    the data card, which names the folder.
    """

    def of(root: Path) -> dict[str, str]:
        runs = {layout.LOG, layout.PROGRESS, layout.FAILURES}
        files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        return {
            name: ""
            if name == layout.CARD or name.startswith("commits/")
            else hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in files.items()
            if name not in runs
        }

    return of


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    """Which toy expert looked at which clip, one line a call; pass `OPENUNI_TOY_CALLS=tmp_path/calls`."""

    def lines() -> list[str]:
        path = tmp_path / "calls"
        return path.read_text().splitlines() if path.exists() else []

    return lines
