"""One map, here or over Ray: order, errors, workers that die, and a cluster that is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openuni.errors import OpenUniError
from openuni_pipelines.engine import cluster
from openuni_pipelines.engine.parallel import mapping

ON_RAY = """
import os, sys, time
from openuni.errors import OpenUniError
from openuni_pipelines.engine.parallel import mapping

def work(item):
    if item == 1:
        time.sleep(0.5)  # the second is done before the first
    if item == 7:
        raise OpenUniError("seven is not to be had")
    if item == 9:
        os._exit(1)
    return item * 10, os.getpid()

with mapping(2) as run:
    made = list(run(work, range(1, 7)))
    print([value for value, _ in made], os.getpid() in {pid for _, pid in made})
    for item in (7, 9):
        try:
            list(run(work, [item]))
        except OpenUniError as error:
            print(error)
    import ray
    print(os.environ["RAY_AUTH_MODE"], ray.util.get_node_ip_address())
"""


def test_in_this_process_it_is_the_built_in_map() -> None:
    seen: list[int] = []

    def double(item: int) -> int:
        seen.append(item)
        return 2 * item

    with mapping(0) as run:
        results = run(double, iter([3, 1, 2]))
        assert next(results) == 6
        assert seen == [3]
        assert list(results) == [2, 4]


def test_a_map_over_nothing_starts_no_cluster() -> None:
    with mapping(2, "127.0.0.1:1") as run:
        assert list(run(abs, [])) == []


@pytest.mark.timeout(300)
def test_on_ray_results_keep_their_order_errors_their_kind_and_a_death_is_a_sentence(tmp_path: Path) -> None:
    """In a temporary folder whose name is too long for Ray's sockets."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    script = tmp_path / "on_ray.py"
    script.write_text(ON_RAY)
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_TMPDIR", "RAY_AUTH_MODE")}
    done = subprocess.run(
        [sys.executable, script], env=env | {"TMPDIR": str(long)}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    order, seven, death, secured = done.stdout.splitlines()
    assert order == "[10, 20, 30, 40, 50, 60] False"
    assert seven == "seven is not to be had"
    assert death.startswith("a worker process died 3 times over one task")
    assert secured == "token 127.0.0.1"


@pytest.mark.timeout(300)
def test_a_program_that_had_imported_ray_starts_it_as_safely(tmp_path: Path) -> None:
    """Ray reads its settings as it is imported: its client knew of no token, and its server asked for one."""
    script = tmp_path / "on_ray.py"
    script.write_text(
        "import os, ray\n"
        "from openuni_pipelines.engine.parallel import mapping\n"
        "with mapping(2) as run:\n"
        "    print(list(run(abs, [-1])), os.environ['RAY_AUTH_MODE'], ray.util.get_node_ip_address())\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=280)
    assert done.stdout == "[1] token 127.0.0.1\n", done.stderr


def test_a_port_where_nobody_listens_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OpenUniError, match=rf"--ray-address {address} \(Connection refused\)"):
        cluster.connect(address)
    # An address is heeded also where a command works in this process unless told otherwise.
    with mapping(0, address) as run, pytest.raises(OpenUniError, match="Connection refused"):
        list(run(abs, [1]))


def test_something_that_listens_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 1.0)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begin = time.monotonic()
        with pytest.raises(OpenUniError, match="did not answer within 1 s"):
            cluster.connect(f"127.0.0.1:{mute.getsockname()[1]}")
    assert time.monotonic() - begin < 60


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cores are all busy: Ray waits for 30 s and raises a plain Exception."""
    import ray

    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(OpenUniError, match=r"^Ray did not start .*timed out during startup\.\); .*--workers 0$"):
        cluster.connect(None)


def test_a_folder_that_ray_can_use_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert cluster._session_folder() is None
    monkeypatch.setenv("TMPDIR", "/tmp/" + "slurm" * 12)
    assert cluster._session_folder() == f"/tmp/ray-{os.getuid()}"
