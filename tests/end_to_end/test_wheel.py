"""What people install: the wheel, outside the checkout, runs the three commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(built, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("openuni-*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site


def _run(site: Path, cwd: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [str(site / "bin" / command[0]), *command[1:]], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_installed_wheel_builds_trains_and_scores(
    site: Path, tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    where = "import openuni, openuni_model, openuni_pipelines, unibench; print(openuni.__file__, unibench.__file__)"
    env = {**os.environ, "PYTHONPATH": str(site)}
    loaded = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert all(path.startswith(str(site)) for path in loaded.stdout.split()), loaded

    make_clips(tmp_path / "videos", ["a"])
    build = "openuni build --source folder --videos videos --experts dis --out data/mine --size 32 --workers 0"
    _run(site, tmp_path, *build.split())
    _run(
        site,
        tmp_path,
        *[
            "openuni",
            "train",
            "--stage",
            "2",
            "--preset",
            "nano",
            "--data",
            "data/mine",
            "--modalities",
            "flow",
            "--dry-run",
        ],
    )
    truth = "unibench render --out data/gt --scenes 1 --frames 4 --size 32 --workers 0"
    _run(site, tmp_path, *truth.split())
    _run(site, tmp_path, *["unibench", "score", "--pred", "data/gt", "--gt", "data/gt", "--out", "score"])
    assert (tmp_path / "score" / "report.html").is_file()
