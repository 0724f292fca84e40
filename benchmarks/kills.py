"""The kill harness: builds that are killed at every kind of moment must end in the bytes of an undisturbed build.

    python benchmarks/kills.py --kills 48 --report /tmp/kills.json      # one machine
    python benchmarks/kills.py --kills 12 --nodes 3 --report …          # three Ray nodes on this machine, shared folder

Real `openuni build` commands run on small clips with slow toy experts and the light real ones (`tests/plugins`). A
seeded strike sends SIGKILL to the driver, a worker, the raylet or all of them, when the dataset folder reaches a
chosen state; then the same command is run again, soon enough to meet workers of the killed run that still write.
Only processes that carry the harness's own mark in their environment are ever killed.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openuni import assets
from openuni.experts.fastdepth import WEIGHTS
from openuni.shards import failures, layout, verify

REPOSITORY = Path(__file__).parents[1]
MARK = "OPENUNI_KILL_HARNESS"
KINDS = ("driver", "worker", "raylet", "group")
MOMENTS = ("planning", "annotating", "writing", "renamed", "committed", "any")
SHARD_SIZE = 4
CLIPS = 24
TOYS = ("toy_card", "dis")


@dataclass(frozen=True)
class Strike:
    """What was killed, when, and how long the newcomer waited before it began."""

    kind: str
    moment: str
    pause: float


@dataclass
class Report:
    """What the harness did and found. `problems` must be empty."""

    seed: int
    nodes: int
    experts: list[str]
    strikes: list[Strike] = field(default_factory=list)
    data_sets: int = 0
    runs: int = 0
    samples: int = 0
    nodes_removed: int = 0
    late_results: int = 0
    """Result files that a killed run's workers still wrote after the strike."""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Harness:
    """Builds under fire in a scratch folder."""

    def __init__(self, folder: Path, seed: int, address: str | None, nodes: int, mark: str) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        experts = (*TOYS, "fastdepth" if assets.is_cached(WEIGHTS) else "toy_depth")
        self.report = Report(seed, nodes, list(experts))
        self._address = address
        self._mark = mark
        self._ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        sys.path[:0] = [str(REPOSITORY / "tests" / "plugins"), str(REPOSITORY)]
        self._videos = _make_videos(folder / "videos")
        done = subprocess.run(
            [*self._command(folder / "undisturbed"), "--workers", "0"], env=self._env(), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"the undisturbed build failed: {done.stderr}")
        self.expected = digests(folder / "undisturbed")

    def close(self) -> None:
        if self._address is None:
            self._kill_all()
        shutil.rmtree(self._ray, ignore_errors=True)

    def data_set(self, strikes: list[tuple[str, str]], on_strike: Any = None) -> None:
        """Build one dataset under `strikes` (kind, moment); it is run again until it is whole, then examined."""
        number = self.report.data_sets
        self.report.data_sets += 1
        root = self.folder / f"d{number:03d}"
        todo = list(strikes)
        while True:
            self.report.runs += 1
            committed = _commits(root)
            calls = self._calls(root)
            run = subprocess.Popen(
                self._command(root), env=self._env(root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
            ended = False
            while todo and not ended:
                ended = self._strike(run, root, *todo.pop(0))
                if on_strike is not None:
                    on_strike(len(self.report.strikes))
            try:
                _, stderr = run.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                self._problem(root, "the driver neither ended nor finished within 240 s; it was killed")
                run.kill()
                run.communicate()
                continue
            self._check_untouched(root, committed, calls)
            if run.returncode == 0:
                break
            if not ended:
                self._problem(root, f"the run ended with status {run.returncode} unprovoked: {stderr[-600:]}")
                break
        self._examine(root)
        shutil.rmtree(root)

    def _strike(self, run: subprocess.Popen[str], root: Path, kind: str, moment: str) -> bool:
        """Wait for the moment and kill. True if the run has ended (or will, by this kill); the moment may not come."""
        reached = self._moment(root, moment)
        deadline = time.monotonic() + 90
        while not reached():
            over = moment == "planning" and (root / layout.MANIFEST).exists()
            if over or run.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        targets = self._targets(kind, run)
        if not targets or run.poll() is not None:
            return False
        before = _results(root)
        for process in targets:
            _kill(process)
        pause = 0.0
        if kind != "worker":
            if kind == "raylet":
                self._wait_for_end(run, root)
            pause = self.rng.choice((0.0, 0.0, 0.3, 1.0, 2.0))
            time.sleep(pause)
            self.report.late_results += len(_results(root) - before)
        self.report.strikes.append(Strike(kind, moment, pause))
        print(f"{len(self.report.strikes):3d} {root.name} {kind:7s} {moment}", flush=True)
        return kind != "worker"

    def _wait_for_end(self, run: subprocess.Popen[str], root: Path) -> None:
        """A driver whose raylet is gone must notice by itself."""
        deadline = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if run.poll() is None:
            self._problem(root, "the driver had not noticed after 120 s that its raylet was gone")
            run.kill()

    def _moment(self, root: Path, moment: str) -> Any:
        """A predicate over the folder's state that becomes true at the moment."""
        begin, wait = time.monotonic(), self.rng.uniform(0.5, 14.0)
        start, more = len(_results(root)), self.rng.randint(1, 12)
        already, commits = len(_commits(root)), self.rng.randint(1, 5)
        return {
            "planning": lambda: (root / layout.LOCK).exists() and not (root / layout.MANIFEST).exists(),
            "annotating": lambda: len(_results(root)) >= start + more,
            "writing": lambda: any((root / "shards").glob(".*.tmp")),
            "renamed": lambda: any(
                not (root / "commits" / f"{tar.stem}.json").exists() for tar in (root / "shards").glob("[0-9]*.tar")
            ),
            "committed": lambda: len(_commits(root)) >= already + commits,
            "any": lambda: time.monotonic() - begin > wait,
        }[moment]

    def _targets(self, kind: str, run: subprocess.Popen[str]) -> list[int]:
        marked = self._marked()
        if kind == "driver":
            return [run.pid]
        if kind == "worker":
            workers = sorted(pid for pid, command in marked.items() if command.startswith("ray::_Actor"))
            return [self.rng.choice(workers)] if workers else []
        if kind == "raylet":
            return [pid for pid, command in marked.items() if "raylet/raylet " in command]
        return [run.pid, *marked]

    def _marked(self) -> dict[int, str]:
        """Command line by pid of every living process that carries this harness's mark."""
        found: dict[int, str] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def _kill_all(self) -> None:
        for process in self._marked():
            _kill(process)

    def _examine(self, root: Path) -> None:
        found = digests(root)
        if found != self.expected:
            names = found.keys() | self.expected.keys()
            wrong = sorted(name for name in names if found.get(name) != self.expected.get(name))
            self._problem(root, f"differs from the undisturbed build in {', '.join(wrong[:6])}")
        if blamed := failures.read(root):
            self._problem(root, f"blames {blamed[0]}")
        for shard in range(verify.manifest(root).shards):
            for column in verify.manifest(root).columns:
                checked = verify.verify_column(root, shard, column)
                self.report.samples += checked.samples
                for problem in checked.problems:
                    self._problem(root, f"{problem.file}: {problem.what}")
        if (root / "work").exists():
            left = sorted(str(path.relative_to(root)) for path in (root / "work").rglob("*"))
            self._problem(root, f"work/ was left behind: {left[:4]}")

    def _check_untouched(self, root: Path, committed: dict[str, bytes], calls: list[str]) -> None:
        """What was committed before a run must not be written or computed again by it."""
        after = _commits(root)
        for name, record in committed.items():
            if after.get(name) != record:
                self._problem(root, f"{name} was committed and has been written again")
        experts = {"thermal": "toy_card", "depth": "toy_depth"}
        for call in self._calls(root)[len(calls) :]:
            expert, key = call.split()
            shard = int(key[1:]) // SHARD_SIZE
            if any(expert == experts.get(column) and f"{shard:06d}.{column}.json" in committed for column in experts):
                self._problem(root, f"{call} was computed again after its column was committed")

    def _problem(self, root: Path, what: str) -> None:
        print(f"    PROBLEM in {root.name}: {what}", flush=True)
        self.report.problems.append(f"{root.name}: {what}")

    def _calls(self, root: Path) -> list[str]:
        path = root.with_suffix(".calls")
        return path.read_text().splitlines() if path.exists() else []

    def _command(self, root: Path) -> list[str]:
        options = ["--source", "toy", "--videos", str(self._videos), "--out", str(root), "--min-free", "0"]
        options += ["--experts", ",".join(self.report.experts), "--shard-size", str(SHARD_SIZE)]
        if self._address is not None and root.name != "undisturbed":
            options += ["--ray-address", self._address]
        return [str(Path(sys.executable).with_name("openuni")), "build", *options]

    def _env(self, root: Path | None = None) -> dict[str, str]:
        env = os.environ | toy_env() | {MARK: self._mark, "RAY_TMPDIR": str(self._ray)}
        if root is not None:
            env |= {"OPENUNI_TOY_CALLS": str(root.with_suffix(".calls"))}
        return env


def toy_env() -> dict[str, str]:
    """What the toy experts read: slow enough to be hit, with lingering renames."""
    return {
        "PYTHONPATH": str(REPOSITORY / "tests" / "plugins"),
        "OPENUNI_TOY_SLEEP": "0.15",
        "OPENUNI_TOY_LINGER": "0.1",
        "OMP_NUM_THREADS": "1",
        "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}',  # which only Ray counts: the worker of `toy_card` holds several clips
    }


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every tar and index of a dataset, by path, and of whatever temporary file was left anywhere in it."""
    files = sorted([*root.glob("shards/*"), *root.glob("index/*"), *root.rglob(".*")])
    return {str(path.relative_to(root)): layout.file_record(path).sha256 for path in files if path.is_file()}


def schedule(rng: random.Random, kills: int, kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    """Kinds and moments in random order, each pair about as often as any other; one strike at planning at most."""
    pairs = [(kind, moment) for moment in MOMENTS if moment != "planning" for kind in kinds]
    strikes: list[tuple[str, str]] = []
    while len(strikes) < kills:
        strikes += rng.sample(pairs, len(pairs))
    planning = [(rng.choice([kind for kind in kinds if kind != "worker"]), "planning")] if rng.random() < 0.5 else []
    return (planning + strikes)[:kills]


@contextmanager
def cluster(nodes: int, mark: str) -> Iterator[Any]:
    """Ray nodes on this machine, one core each, that share its disk; None where one node will do."""
    if nodes == 1:
        yield None
        return
    from ray.cluster_utils import Cluster

    # The nodes' processes carry the mark; this one does not, its environment as the kernel shows it is older.
    os.environ.update(toy_env() | {MARK: mark}, RAY_USAGE_STATS_ENABLED="0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=1, object_store_memory=80 << 20)
        yield made
    finally:
        made.shutdown()


def run(folder: Path, kills: int, nodes: int, seed: int) -> Report:
    """Strike until `kills` are counted. On a cluster a node is removed, and another added, between strikes."""
    begin = time.monotonic()
    mark = uuid.uuid4().hex
    with cluster(nodes, mark) as ray_nodes:
        harness = Harness(folder, seed, ray_nodes.address if ray_nodes else None, nodes, mark)
        report = harness.report

        def swap_node(count: int) -> None:
            if ray_nodes is not None and count % 3 == 1:
                ray_nodes.remove_node(next(iter(ray_nodes.worker_nodes)), allow_graceful=False)
                ray_nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
                report.nodes_removed += 1

        try:
            while len(report.strikes) < kills and not report.problems:
                kinds = KINDS if ray_nodes is None else ("driver", "worker")
                harness.data_set(schedule(harness.rng, min(10, kills - len(report.strikes)), kinds), swap_node)
        finally:
            harness.close()
    report.seconds = time.monotonic() - begin
    return report


def _make_videos(folder: Path) -> Path:
    from openuni.video import encode_video
    from tests.conftest import moving_picture

    folder.mkdir(parents=True)
    for number in range(CLIPS):
        (folder / f"c{number:02d}.mp4").write_bytes(encode_video(moving_picture(number, 8, 48), 16.0))
    return folder


def _commits(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "commits").glob("[0-9]*.json")}


def _results(root: Path) -> set[str]:
    # Not Path.glob: it raises where a run takes a finished shard's folder away meanwhile.
    return set(glob.glob(f"{glob.escape(str(root))}/work/*/[!.]*.tar"))  # noqa: PTH207


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=48)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="where to write the report as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openuni-kills-") as folder:
        report = run(Path(folder), options.kills, options.nodes, options.seed)
    if options.report:
        options.report.write_text(json.dumps(asdict(report), indent=1) + "\n")
    for (kind, moment), count in sorted(Counter((s.kind, s.moment) for s in report.strikes).items()):
        print(f"{kind:8s}{moment:12s}{count:4d}")
    print(f"{len(report.strikes)} kills, {report.data_sets} datasets, {report.runs} runs, {report.samples} samples, "
          f"{report.late_results} late results, {report.seconds:.0f} s, {len(report.problems)} problems")  # fmt: skip
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()
