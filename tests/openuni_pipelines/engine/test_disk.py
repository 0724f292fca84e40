"""A full disk: noticed before it hurts, one clear sentence when it does, nothing half committed, the next run ends."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openuni.shards import columns, layout, verify

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
NAMES = [f"c{number:02d}" for number in range(10)]
pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kib)`: a file system of that size; called again, it is resized."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(kib: int) -> Path:
        nonlocal mounted
        option = f"{'remount,' if mounted else ''}size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a small file system needs root; test_a_quota_... needs nothing")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def committed(root: Path) -> int:
    """Columns that are committed, each of which must be whole."""
    count = 0
    for path in (root / "commits").glob("*.json"):
        shard, column = path.stem.split(".")
        checked = verify.verify_column(root, int(shard), column)
        assert [p for p in checked.problems if "RGB" not in p.what] == []
        count += 1
    return count


def test_low_space_is_noticed_before_anything_is_made(build: Command, videos: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free / 2**30
    done = build(videos, tmp_path / "d", "toy_depth", "--min-free", free + 100)
    assert done.returncode == 1
    assert "less than --min-free" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kib", [40, 300, 600])
def test_a_full_disk_ends_in_one_sentence_and_the_next_run_completes(
    build: Command, videos: Path, tmp_path: Path, small_disk: Callable[[int], Path], digests: Digests, kib: int
) -> None:
    """Full while planning, while experts annotate, and while columns are committed."""
    root = small_disk(kib) / "d"
    done = build(videos, root, "toy_thermal,toy_depth", ray=kib == 300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: the disk of ")
    assert "make room and run the same command again" in done.stderr
    assert not list(root.glob("*/.*.tmp"))  # in work/ a worker that was stopped may have left one
    if (root / layout.MANIFEST).exists():
        committed(root)
    small_disk(64 << 10)
    assert build(videos, root, "toy_thermal,toy_depth").returncode == 0
    assert build(videos, tmp_path / "undisturbed", "toy_thermal,toy_depth").returncode == 0
    assert digests(root) == digests(tmp_path / "undisturbed")


def test_a_quota_on_files_ends_in_one_sentence_and_the_next_run_completes(
    build: Command, videos: Path, tmp_path: Path, digests: Digests
) -> None:
    """No privilege needed: files may grow to 60 KB, which a result fits in and a column of four does not."""
    command = [Path(sys.executable).with_name("openuni"), "build", "--source", "toy", "--videos", videos]
    command += ["--out", tmp_path / "d", "--experts", "toy_thermal", "--shard-size", "4", "--min-free", "0"]
    done = subprocess.run(
        [*command, "--workers", "0"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 1
    assert "refuses to take more" in done.stderr
    assert columns.committed(tmp_path / "d", 0, "thermal") is None
    assert not list((tmp_path / "d").rglob(".*.tmp"))
    assert build(videos, tmp_path / "d", "toy_thermal").returncode == 0
    assert build(videos, tmp_path / "undisturbed", "toy_thermal").returncode == 0
    assert digests(tmp_path / "d") == digests(tmp_path / "undisturbed")
