"""What may not be read or written (EACCES) is one sentence that names it, in every command that writes.

Nothing is denied to root, so as root the commands run as nobody, in a process that this file is the program of.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
CHANGED = {
    "index": ["openuni", "index", "DATA"],
    "select": ["openuni", "select", "DATA", "--out", "DATA/view.json"],
    "drop": ["openuni", "drop", "DATA", "depth"],
    "remove": ["openuni", "remove", "DATA", "--key", "disc-00"],
    "add": ["openuni", "add", "DATA", "dis", "--workers", "0", "--min-free", "0"],
    "build": ["openuni", "build", "--source", "folder", "--videos", "videos", "--experts", "dis", "--out", "DATA"],
}
"""Commands that change a dataset."""
MADE = {
    "build": ["openuni", "build", "--source", "folder", "--videos", "videos", "--experts", "dis", "--workers", "0"],
    "export": ["openuni", "export", "discs"],
    "import": ["unibench", "import", "davis", "--format", "davis"],
    "score": ["unibench", "score", "--pred", "discs", "--gt", "discs", "--tasks", "depth"],
    "collect": ["unibench", "collect", "--data", "discs", "--count", "2", "--split", "val"],
    "render": ["unibench", "render", "--scenes", "1", "--frames", "2", "--size", "32", "--workers", "0"],
    "train": ["openuni", "train", "--data", "discs", "--stage", "tiny.toml", "--steps", "1"],
    "generate": ["openuni", "generate", "--task", "est", "--modality", "depth", "--checkpoint", "model",
                 "--bench", "discs", "--steps", "1"],
    "export-weights": ["openuni", "export-weights", "--checkpoint", "model"],
}  # fmt: skip
"""Commands that make a folder, `--out`."""


@dataclass(frozen=True)
class Case:
    """A command, and the path that it may not read (`mode` 0) or not write (0o555)."""

    name: str
    line: list[str]
    denied: str
    mode: int


def cases() -> Iterator[Case]:
    for name, line in CHANGED.items():
        yield Case(f"{name}: a dataset that is read-only", line, "DATA", 0o555)
        yield Case(f"{name}: a manifest that may not be read", line, "DATA/dataset.json", 0)
    for name, line in MADE.items():
        if name != "export-weights":  # an empty folder, which the system lets a finished one take the place of
            yield Case(f"{name}: a folder that is read-only", [*line, "--out", "locked"], "locked", 0o555)
        yield Case(f"{name}: below a folder that is read-only", [*line, "--out", "locked/new"], "locked", 0o555)
    for name, path in {
        "export": "discs/shards/000000.rgb.tar", "collect": "discs/shards/000000.rgb.tar",
        "score": "discs/shards/000000.depth.tar", "import": "davis/Annotations/480p/bear/00000.png",
        "train": "discs/shards/000000.rgb.tar", "generate": "model/model.safetensors",
        "export-weights": "model/model.safetensors",
    }.items():  # fmt: skip
        yield Case(f"{name}: an input that may not be read", [*MADE[name], "--out", "new"], path, 0)


def prepare(folder: Path) -> None:
    from benchmarks.kill_commands import make_davis, make_model
    from openuni.video import encode_video
    from tests.conftest import moving_picture
    from tests.openuni_model.conftest import write_discs

    write_discs(folder / "discs")
    make_davis(folder / "davis")
    make_model(folder / "model")
    (folder / "videos").mkdir()
    (folder / "videos" / "v.mp4").write_bytes(encode_video(moving_picture(0, 10, 48), 16.0))
    (folder / "tiny.toml").write_text('modalities = ["depth"]\n')


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Exit status, what was printed, and what was written of one command."""
    from click.testing import CliRunner

    from openuni_pipelines import cli

    os.chdir(folder)
    for made in (Path("DATA"), Path("locked"), Path("new")):
        shutil.rmtree(made, ignore_errors=True)
    shutil.copytree("discs", "DATA")
    Path("locked").mkdir()
    denied = Path(case.denied)
    before = denied.stat().st_mode
    there = sorted(folder.rglob("*"))
    every = [denied, *denied.rglob("*")] if denied.is_dir() else [denied]
    for path in every:
        path.chmod(case.mode if path.is_dir() or not case.mode else 0o444)
    program, *arguments = case.line
    done = CliRunner().invoke(getattr(cli, program), arguments)
    for path in every:
        path.chmod(0o755 if path.is_dir() else before)
    unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
    return {
        "status": done.exit_code, "said": done.output, "raised": repr(done.exception) if unexpected else "",
        "new": [str(path) for path in sorted(folder.rglob("*")) if path not in there],
    }  # fmt: skip


@pytest.fixture(scope="module")
def ends() -> Iterator[dict[str, dict[str, Any]]]:
    pytest.importorskip("torch")
    folder = Path(tempfile.mkdtemp(prefix="openuni-denied-"))
    try:
        prepare(folder)
        (folder / "home").mkdir()
        command = [sys.executable]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        env = os.environ | {"HOME": str(folder / "home"), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
        asked = [*command, "-c", "import click, numpy"]
        if not shutil.which(command[0]) or subprocess.run(asked, cwd=folder, env=env, capture_output=True).returncode:
            pytest.skip("nobody may not run this Python here")
        done = subprocess.run([*command, __file__, folder], cwd=folder, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        yield json.loads(done.stdout.decode().splitlines()[-1])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_what_is_denied_is_named_and_nothing_is_half_written(case: Case, ends: dict[str, dict[str, Any]]) -> None:
    end = ends[case.name]
    said = " ".join(str(end["said"]).split())
    assert end["raised"] == "", said
    assert end["status"] not in (0, None), said
    assert case.denied in said
    assert ".tmp" not in said
    assert "Traceback" not in said
    assert [path for path in end["new"] if path.endswith((".tmp", ".run.lock"))] == []


if __name__ == "__main__":
    print(json.dumps({case.name: run(case, Path(sys.argv[1])) for case in cases()}))
