"""Several nodes: model files come to each node once, and a model is loaded once by each worker that uses it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import openuni

Command = Callable[..., subprocess.CompletedProcess[str]]
NODES, CORES = 3, 2


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address that gives the toy weights, slowly, and the list of who asked."""
    asked: list[str] = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.strip("/"))
            time.sleep(2)  # so that the other workers of the node come meanwhile
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(1 << 16))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", asked
        serving.shutdown()


@pytest.fixture
def nodes(tmp_path: Path, toys: None, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a Ray cluster of three nodes of two cores, each with an empty asset cache of its own."""
    from ray.cluster_utils import Cluster

    for name, value in (
        ("NO_PROXY", "127.0.0.1"),
        ("OMP_NUM_THREADS", "1"),
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("OPENUNI_TOY_SERVER", server[0]),
        ("OPENUNI_TOY_SETUPS", str(tmp_path / "setups")),
        ("OPENUNI_TOY_TOGETHER", str(NODES * CORES)),
    ):
        monkeypatch.setenv(name, value)
    for name in ("OPENUNI_OFFLINE", "HF_HUB_OFFLINE"):  # the nodes fetch, from this machine
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "setups").touch()
    cluster = Cluster()
    try:
        for number in range(NODES):
            home = {"OPENUNI_HOME": str(tmp_path / f"node{number}")}
            cluster.add_node(num_cpus=CORES, object_store_memory=80 << 20, env_vars=home, include_dashboard=False)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_fetches_a_model_once_and_each_of_its_workers_loads_it_once(
    nodes: str,
    server: tuple[str, list[str]],
    openuni_command: Command,
    make_clips: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The expert works only when all six workers have loaded its model, so all six had to; none did so twice."""
    names = [f"c{number:02d}" for number in range(24)]
    videos = make_clips(tmp_path / "v", names)
    here = tmp_path / "driver" / "assets" / "toy" / "weights.bin"
    here.parent.mkdir(parents=True)
    here.write_bytes(bytes(1 << 16))
    options = ("--source", "toy", "--videos", videos, "--out", tmp_path / "d", "--experts", "toy_weights")
    done = openuni_command(
        "build", *options, "--min-free", 0, "--ray-address", nodes, env={"OPENUNI_HOME": str(tmp_path / "driver")}
    )
    assert done.returncode == 0, done.stderr
    assert sorted(server[1]) == [f"node{number}" for number in range(NODES)]
    loads = [line.split() for line in (tmp_path / "setups").read_text().splitlines()]
    assert Counter(node for node, _, _ in loads) == {f"node{number}": CORES for number in range(NODES)}
    assert len({process for _, process, _ in loads}) == NODES * CORES
    assert {size for _, _, size in loads} == {str(1 << 16)}
    assert all("thermal" in sample for sample in openuni.open(str(tmp_path / "d")))
    for number in range(NODES):
        assert os.listdir(tmp_path / f"node{number}" / "assets" / "toy") == ["weights.bin"]  # noqa: PTH208
