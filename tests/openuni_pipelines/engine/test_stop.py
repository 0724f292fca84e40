"""A build that is asked to stop: it ends in order and says so, and the same command completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from openuni.shards import failures, layout
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.run import holding

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
NAMES = [f"c{number:02d}" for number in range(10)]
MARK = "OPENUNI_TEST_STOP"
pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


def stop(root: Path, videos: Path, number: int, *, ray: bool, group: bool) -> tuple[int, str]:
    """Start a build, signal it when its first column is committed, and return its exit status and what it said.

    `group` signals every process of its session, as Ctrl-C in a terminal does.
    """
    line = [Path(sys.executable).with_name("openuni"), "build", "--source", "toy", "--videos", videos, "--out", root]
    line += ["--experts", "toy_thermal,toy_depth", "--shard-size", "4", "--min-free", "0"]
    # Experts so slow that Ray's driver is hit while Ray waits (it runs Python's handlers by itself there), and that no
    # build is through before a test on a busy machine gets round to signalling it.
    env = os.environ | {"OPENUNI_TOY_SLEEP": "2", "OPENUNI_TOY_LINGER": "0.1", MARK: str(root)}
    run = subprocess.Popen(
        [*line, *(() if ray else ("--workers", "0"))],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(root.glob("commits/*.rgb.json")):
            assert run.poll() is None
            time.sleep(0.01)
        (os.killpg if group else os.kill)(run.pid, number)
        _, stderr = run.communicate(timeout=300)
    finally:
        run.kill()
    return run.returncode, stderr


def marked(root: Path) -> list[str]:
    """What still runs of the build of `root`, Ray's processes too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={root}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("number", "ray", "group"),
    [
        pytest.param(signal.SIGINT, False, False, id="interrupt-in-process"),
        pytest.param(signal.SIGTERM, False, False, id="terminate-in-process"),
        pytest.param(signal.SIGINT, True, True, id="ctrl-c-on-ray", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, False, id="terminate-on-ray", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, True, id="terminate-all-on-ray", marks=pytest.mark.slow),
    ],
)
def test_a_build_that_is_asked_to_stop_says_so_and_the_same_command_completes_it(
    number: int,
    ray: bool,
    group: bool,
    build: Command,
    openuni_command: Command,
    videos: Path,
    tmp_path: Path,
    digests: Digests,
) -> None:
    root = tmp_path / "d"
    status, said = stop(root, videos, number, ray=ray, group=group)
    assert status == 128 + number, said
    assert said.splitlines()[-1].startswith(f"stopped by {signal.Signals(number).name}; nothing is half committed")
    assert "Traceback" not in said
    assert not (root / layout.LOCK).exists()
    assert "not running, not complete" in openuni_command("status", root).stdout
    deadline = time.monotonic() + 300
    while (left := marked(root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    done = build(videos, root, "toy_thermal,toy_depth", ray=ray)
    assert done.returncode == 0, done.stderr
    assert failures.read(root) == []
    assert build(videos, tmp_path / "undisturbed", "toy_thermal,toy_depth").returncode == 0
    assert digests(root) == digests(tmp_path / "undisturbed")


def test_a_signal_whose_exception_is_swallowed_still_ends_the_build(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "videos", ["a", "b", "swallow-c", "d", "e"])
    stopped = build(folder, tmp_path / "d", "toy_poison", "--shard-size", "2")
    assert "Exception ignored in" in stopped.stderr
    assert stopped.returncode == 128 + signal.SIGTERM
    assert stopped.stderr.splitlines()[-1].startswith("stopped by SIGTERM; nothing is half committed")
    assert not (tmp_path / "d" / layout.LOCK).exists()
    cured = {"OPENUNI_TOY_CURED": "1"}
    assert build(folder, tmp_path / "d", "toy_poison", "--shard-size", "2", env=cured).returncode == 0


def test_a_signal_ends_its_own_run_and_no_later_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped, holding(tmp_path / "d"), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 128 + signal.SIGTERM
    stopping.check()
    with holding(tmp_path / "d"):
        stopping.check()


def test_a_run_removes_what_its_own_killed_worker_left_behind(tmp_path: Path) -> None:
    with holding(tmp_path / "d") as run:
        left = tmp_path / "d" / "shards" / f".000000.rgb.tar.{run}.0a1b2c3d.tmp"
        left.parent.mkdir()
        left.write_bytes(b"half")
    assert not left.exists()
