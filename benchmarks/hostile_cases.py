"""Datasets, predictions, checkpoints and folders that somebody else made, each through a command as a user runs it.

A case is one seeded change to a good folder and one command on it, in a process of its own that may take 10 s and some
memory. Looked at afterwards: every file outside what the command may write, whether anything was run, what it printed.
`benchmarks/hostile.py` runs them and reports.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import openuni
from openuni.errors import OpenUniError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Clip, Record, Status
from openuni.shards import catalog, columns, index, layout, plan, results, takedown, verify, writer
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.shards.results import ColumnNote, Result
from openuni.storage import LocalStore
from openuni.video import encode_video
from openuni_pipelines import cli

SECONDS = 10.0
"""What a case may take."""
MEMORY_MIB = 1536
"""What a case may have resident, the interpreter and its libraries included."""
_T, _H, _W = 4, 16, 24
KEYS = ("clip-0", "clip-1", "clip-2", "clip-3")
_COLUMNS = {"rgb": "made-1-0", "depth": "made-1-0", "flow": "made-1-0"}
_MEASURED = "scores-1-0"
NASTY = ("../../escaped", "/tmp/escaped", "..", "", "a/b", "a.b", "$(touch RAN)", "`touch RAN`", "\x1b[2J\x1b[31m",
          "[red]x[/red]", "[/red]", "a\nb", "é", "\u202eabc", "x" * 300, "-rf", "\x9b31m", "%s%n", "con")  # fmt: skip
NUMBERS = (-1, 0, 1, 10**6, 2**31 - 1, 2**31, 2**40, 2**62, -(2**40), 3.5, float("1e308"))

Change = Callable[[Path, random.Random], None]
Act = Callable[[Path], int]


@dataclass(frozen=True, slots=True)
class Case:
    """`change` is applied to a copy of the family's good folder, `d`, and `act` is called beside it."""

    family: str
    name: str
    change: Change
    act: Act


@dataclass
class Ended:
    """How a case ended. `problem` is empty where all is well."""

    case: str
    status: int = 0
    seconds: float = 0.0
    mib: int = 0
    said: str = ""
    problem: str = ""


@dataclass
class Good:
    """The good folders that cases change, made once; `outside` is what links point to."""

    root: Path
    families: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.families["datasets"] = _write_dataset(self.root / "dataset")
        self.families["measured"] = _write_dataset(self.root / "measured", measured=True)
        self.families["predictions"] = _write_predictions(self.root / "predictions", 1)
        self.families["folders"] = self.root / "folder"
        (self.root / "folder").mkdir()
        _write_predictions(self.root / "truth", 0)
        masks = self.root / "davis" / "Annotations" / "480p" / "one"
        masks.mkdir(parents=True)
        frames = self.root / "davis" / "JPEGImages" / "480p" / "one"
        frames.mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(masks / f"{number:05d}.png"), np.zeros((_H, _W), np.uint8))
            cv2.imwrite(str(frames / f"{number:05d}.jpg"), np.zeros((_H, _W, 3), np.uint8))
        outside = self.root / "outside"
        (outside / "000000").mkdir(parents=True)
        (outside / "precious").write_text("precious\n")
        (outside / "000000" / "photo.jpg").write_text("photo\n")
        (outside / "000000.depth.json").write_text("{}")

    def checkpoint(self) -> None:
        """A small model, for the family that needs torch."""
        import torch

        from openuni_model.config import preset
        from openuni_model.dit import UnifiedDiT
        from openuni_model.weights import save_model

        torch.manual_seed(0)
        model = UnifiedDiT(preset("nano", modalities=("rgb", "depth"), layers=1, width=32, heads=2, ffn=32))
        folder = self.root / "checkpoint"
        folder.mkdir()
        save_model(folder, model.config, model.state_dict(), "")
        self.families["checkpoints"] = folder


def cases(families: Sequence[str], seed: int) -> Iterator[Case]:
    """Every case of these families, in a fixed order."""
    from benchmarks import hostile_copies

    made = {
        "datasets": _datasets,
        "measured": _measured,
        "predictions": _predictions,
        "checkpoints": _checkpoints,
        "folders": _folders,
    }
    for family in families:
        rng = random.Random(f"{seed}/{family}")
        yield from made[family](rng) if family in made else hostile_copies.cases(family, rng)


def run(case: Case, good: Good, folder: Path, seed: int, seconds: float = SECONDS) -> Ended:
    """Make the case's folders below `folder`, run it in a process of its own for at most `seconds`, and look."""
    shutil.copytree(good.families[case.family], folder / "d", symlinks=True)
    shutil.copytree(good.root / "outside", folder / "outside")
    case.change(folder / "d", random.Random(f"{seed}/{case.name}"))
    kept = folder / "d" if case.family == "folders" else folder / "outside"
    before, beside = _listing(kept), _names(folder)
    ended = Ended(f"{case.family}: {case.name}")
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_case(case, folder)
    ended.status, ended.mib = _wait(child, begin + seconds)
    ended.seconds = time.monotonic() - begin
    said = (folder / "said").read_bytes().decode("utf-8", "backslashreplace")
    ended.said = said.strip().rpartition("\n")[2][:300]
    ended.problem = _problem(ended, said)
    if (after := _listing(kept)) != before:
        ended.problem = f"{kept.name} changed: {sorted(after.items() ^ before.items())[:3]}"
    if strange := _names(folder) - beside - {"said", "x", "x.hub"}:
        ended.problem = f"it made {sorted(strange)}"
    for tar in (folder / "x").glob("*.tar"):
        with tarfile.open(tar) as opened:
            if bad := [n for n in opened.getnames() if not re.fullmatch(r"[\w-]{1,64}(\.\w+)+", n)]:
                ended.problem = f"{tar.name} has {bad[0]!r}"
    return ended


def _problem(ended: Ended, said: str) -> str:
    if ended.status == -signal.SIGKILL:
        return f"it was killed after {ended.seconds:.0f} s"
    if ended.status < 0:
        return f"it died by signal {-ended.status}"
    if "Traceback" in said:
        return f"a traceback: {ended.said}"
    if ended.status not in (0, 1, 2, 3):
        return f"it ended with status {ended.status}"
    if harmful := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", said):
        return f"it printed {harmful[0]!r}: {ended.said!r}"
    if ended.mib > MEMORY_MIB:
        return f"it took {ended.mib} MiB"
    return ""


def _be_the_case(case: Case, folder: Path) -> None:
    """The child: standard output and error go to a file, and nothing of the parent runs when it ends."""
    status = 70
    try:
        os.chdir(folder)
        said = os.open("said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (8 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))  # so that a false count does not take the machine down
        status = case.act(folder)
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 1
    except BaseException:  # noqa: BLE001  whatever it is, it is the case's outcome
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int, deadline: float) -> tuple[int, int]:
    """Exit status (minus the signal) and peak MiB."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss >> 10
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += 1e9
        time.sleep(0.01)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _listing(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else "-"
    return found


def call(group: str, *arguments: str) -> Act:
    """A command of `openuni` or `unibench`."""
    return lambda folder: status_of(group, *arguments)


def status_of(group: str, *arguments: str) -> int:
    """The exit status of a command of `openuni` or `unibench`, run in this process."""
    try:
        getattr(cli, group).main([a.replace("@", str(good_root)) for a in arguments], prog_name=group)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


good_root = Path()
"""Where the good folders lie; `@` in an argument. Set by `prepare`, before any process is forked."""


def prepare(root: Path, families: Sequence[str]) -> Good:
    """Make the good folders and import what cases need, so that each forked case starts at once."""
    global good_root
    good_root = root
    good = Good(root)
    from benchmarks import hostile_copies

    good.families["pushed"] = good.families["pulled"] = good.families["datasets"]
    good.families["published"] = hostile_copies.write_published(root / "published")
    good.families["benchmarks"] = root / "davis"
    if "reports" in families:
        good.families["reports"] = hostile_copies.write_reports(root)
    if "checkpoints" in families:
        good.checkpoint()
    import openuni_pipelines.commands.add
    import openuni_pipelines.commands.build
    import openuni_pipelines.commands.collect
    import openuni_pipelines.commands.compare
    import openuni_pipelines.commands.dedup
    import openuni_pipelines.commands.export
    import openuni_pipelines.commands.import_truth
    import openuni_pipelines.commands.index
    import openuni_pipelines.commands.remove
    import openuni_pipelines.commands.score
    import openuni_pipelines.commands.select
    import openuni_pipelines.commands.stats
    import openuni_pipelines.commands.status  # noqa: F401

    cv2.setNumThreads(1)
    return good


# Datasets.


def _write_dataset(root: Path, *, measured: bool = False) -> Path:
    """Four clips in two shards; `measured`: with a column of numbers, as `openuni add scores` makes it."""
    columns_made = _COLUMNS | ({layout.SCORES: _MEASURED} if measured else {})
    rng = np.random.default_rng(0)
    for shard in range(2):
        keys = KEYS[2 * shard : 2 * shard + 2]
        for key in keys:
            record = Record(key, _T, _H, _W, 8.0, caption=f"the caption of {key}", video_id=key, license="CC-BY-4.0")
            annotations: dict[str, Annotation[Any] | str] = {
                "rgb": Annotation(Rgb(rng.integers(0, 256, (_T, _H, _W, 3), dtype=np.uint8), 8.0, exact=True)),
                "depth": Annotation(Depth(rng.uniform(1, 9, (_T, _H, _W)).astype(np.float32), "metric"), 0.5),
                "flow": Annotation(Flow(rng.uniform(-3, 3, (_T - 1, _H, _W, 2)).astype(np.float32)), 0.5),
            }
            writer.save_sample(root, shard, record, annotations, _COLUMNS, "made")
            if measured:
                hashes = results.encode_hashes(int(n) for n in rng.integers(0, 1 << 62, 8)).meta
                note = ColumnNote(Status(True, expert=_MEASURED), hashes, {"sharpness": float(rng.uniform())})
                results.save(root, shard, key, f"{_MEASURED}.{layout.SCORES}", Result(layout.SCORES, note, {}), "made")
        writer.commit_shard(root, shard, keys, columns_made, "made")
    generations = [_write_plan(root, number) for number in range(2)]
    told = {"source": "made", plan.GENERATIONS: [dataclasses.asdict(generation) for generation in generations]}
    manifest = Manifest(told, columns_made, 4, 2, generations[0].plan_sha256, openuni=openuni.__version__)
    LocalStore(root).put(layout.MANIFEST, layout.dump_checked(manifest), "made")
    catalog.write(root, "made")
    return root


def _write_plan(root: Path, number: int) -> plan.Generation:
    """The plan of one shard: the dataset was extended once."""
    path = root / plan.name_of(number)
    clips = [Clip(key, f"videos/{key}.mp4", 0.0, _T / 8.0) for key in KEYS[2 * number : 2 * number + 2]]
    plan.write(path, clips, 2, "made")
    return plan.Generation(2, 1, layout.file_record(path).sha256)


def _read_all(folder: Path) -> int:
    """As a training run reads it."""
    try:
        for sample in openuni.open(str(folder / "d")):
            for name in sample.statuses:
                if name in sample:
                    sample[name]
    except OpenUniError as error:
        print(f"error: {str(error).encode('unicode_escape').decode()}")
        return 1
    return 0


def _verify(folder: Path) -> int:
    return verify_folder(folder / "d")


def verify_folder(root: Path) -> int:
    """`openuni verify` without its pool of processes, which would take the seconds that a hang is measured by."""
    try:
        manifest = verify.manifest(root)
        problems = verify.verify_plan(root) + verify.verify_catalog(root)
        for shard in range(min(manifest.shards, 100)):
            for column in manifest.columns:
                problems += verify.verify_column(root, shard, column).problems
    except OpenUniError as error:
        print(f"error: {str(error).encode('unicode_escape').decode()}")
        return 1
    for problem in problems[:3]:
        print(f"error: {str(problem).encode('unicode_escape').decode()}")
    return bool(problems)


def _dataset_acts() -> dict[str, Act]:
    return {
        "read": _read_all,
        "verify": _verify,
        "stats": call("openuni", "stats", "d", "--rows", "1", "--sheet", "x"),
        "export": call("openuni", "export", "d", "--out", "x"),
        "status": call("openuni", "status", "d"),
        "drop": call("openuni", "drop", "d", "flow"),
        "add": call("openuni", "add", "d", "dis", "--workers", "0", "--min-free", "0"),
        "score": call("unibench", "score", "--pred", "d", "--gt", "@/dataset", "--out", "x", "--no-page"),
        "collect": call("unibench", "collect", "--data", "d", "--out", "x", "--count", "1", "--split", "test,val"),
    }


NAMES = ("dataset.json", "commits/000000.rgb.json", "commits/000001.flow.json", "index/000000.rgb.parquet",
          "index/000000.depth.parquet", "shards/000000.rgb.tar", "shards/000001.depth.tar", "failures.parquet",
          "plan.parquet", "plan.0001.parquet", "catalog.json", "catalog.parquet",
          "log.jsonl", "progress.json", "run.lock", ".run.lock", "README.md", ".openuni",
          "work/000000/clip-0.dis-1-0.tar")  # fmt: skip
FOLDERS = ("work", "work/000000", "shards", "index", "commits")


def _datasets(rng: random.Random) -> Iterator[Case]:
    acts = _dataset_acts()
    changes: dict[str, Change] = {"nothing": lambda root, rng: None}
    for name in (*NAMES, *FOLDERS):
        for target in ("../outside/precious", "../outside", "/dev/zero", "/etc/passwd", "nowhere", name.split("/")[-1]):
            changes[f"{name} is a link to {target}"] = linked(name, target)
    for name in NAMES:
        changes[f"{name} is a pipe"] = piped(name)
        changes[f"{name} is a folder"] = foldered(name)
        for number in range(4):
            changes[f"{name} is damaged ({number})"] = damaged(name)
        changes[f"{name} is huge"] = sparse(name)
    for number, text in enumerate(NASTY):
        for where in (
            "key",
            "column",
            "fingerprint",
            "caption",
            "license",
            "reason",
            "member",
            "skipped",
            "version",
            "progress",
        ):
            changes[f"{where} is nasty text {number}"] = text_in(where, text)
    for number in NUMBERS:
        for where in ("shards", "clips", "samples", "present", "frames", "fps", "offset", "size", "tar size", "shard"):
            changes[f"{where} is {number}"] = number_in(where, number)
    for depth in (500, 200_000):
        changes[f"JSON is {depth} deep"] = deep(depth)
    for name, change in changes.items():
        # Every change meets what reads, and another that writes or prints.
        other = rng.choice(["verify", "stats", "export", "status", "drop", "add", "score", "collect"])
        for act in ("status" if name.startswith(("progress", "run.lock")) else "read", other):
            yield Case("datasets", f"{name}; {act}", change, acts[act])


def _measured(rng: random.Random) -> Iterator[Case]:
    """What looks at a dataset as a whole, and what writes beside or into it."""
    acts = {
        "index": call("openuni", "index", "d"),
        "select": call("openuni", "select", "d", "--where", "frames > 2 and sharpness >= 0", "--out", "d/view.json"),
        "dedup": call("openuni", "dedup", "d", "--out", "d/view.json"),
        "remove": call("openuni", "remove", "d", "--key", "clip-1"),
    }
    changes: dict[str, Change] = {f"nothing, {act}": lambda root, rng: None for act in acts}
    names = ("dataset.json", "index/000000.rgb.parquet", "index/000001.scores.parquet", "commits/000000.scores.json",
             "shards/000000.rgb.tar", "shards/000001.scores.tar", "plan.parquet", "skipped.parquet", "catalog.json",
             "catalog.parquet", takedown.FILE, "failures.parquet", "run.lock", "view.json")  # fmt: skip
    for name in names:
        for target in ("../outside/precious", "../outside", "/dev/zero", "nowhere"):
            changes[f"{name} is a link to {target}"] = linked(name, target)
        changes[f"{name} is a pipe"] = piped(name)
        changes[f"{name} is a folder"] = foldered(name)
        changes[f"{name} is huge"] = sparse(name)
        for number in range(3):
            changes[f"{name} is damaged ({number})"] = damaged(name)
    for number, text in enumerate(NASTY):
        for where in ("key", "column", "caption", "license", "member"):
            changes[f"{where} is nasty text {number}"] = text_in(where, text)
    for number in NUMBERS:
        for where in ("shards", "clips", "frames", "size", "tar size", "shard"):
            changes[f"{where} is {number}"] = number_in(where, number)
    for count in (0, 1, 7, 100_000):
        changes[f"a clip has {count} hashes"] = _hashed(count)
    for number, (name, change) in enumerate(changes.items()):
        act = list(acts)[number % 4] if name.startswith("nothing") else rng.choice([*acts])
        yield Case("measured", f"{name}; {act}", change, acts["dedup" if "hashes" in name else act])


def _hashed(count: int) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        first, *rest = columns.rows(root, 0, layout.SCORES)
        first = replace(first, hashes=tuple(rng.randrange(1 << 63) for _ in range(count)))
        _vouch(root, layout.SCORES, index.encode([first, *rest], layout.SCORES), {})

    return change


def linked(name: str, target: str) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        path = cleared(root, name)
        path.symlink_to(target if target.startswith("/") else os.path.relpath(root / target, path.parent))

    return change


def piped(name: str) -> Change:
    return lambda root, rng: os.mkfifo(cleared(root, name))


def foldered(name: str) -> Change:
    return lambda root, rng: cleared(root, name).mkdir()


def sparse(name: str) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        with cleared(root, name).open("wb") as file:
            file.truncate(1 << 38)

    return change


def damaged(name: str) -> Change:
    """Cut, flipped, or replaced by something else."""

    def change(root: Path, rng: random.Random) -> None:
        path = root / name
        data = bytearray(path.read_bytes()) if path.exists() else bytearray(b"PAR1 and {} nothing")
        kind = rng.choice(["cut", "flip", "noise", "swap"])
        if kind == "cut":
            data = data[: rng.randrange(len(data))]
        elif kind == "flip":
            for _ in range(rng.choice((1, 4, 40))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "noise":
            data = bytearray(rng.randbytes(rng.randrange(5000)))
        else:
            data = bytearray((root / rng.choice(NAMES[:7])).read_bytes())
        cleared(root, name).write_bytes(data)

    return change


def deep(depth: int) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        fields = json.loads((root / layout.MANIFEST).read_text())
        text = json.dumps(fields).replace('"made"', "[" * depth + "]" * depth, 1)
        (root / layout.MANIFEST).write_text(text)

    return change


def cleared(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def text_in(where: str, text: str) -> Change:
    """Text of an attacker's in a field, every checksum computed again."""

    def change(root: Path, rng: random.Random) -> None:
        if where == "progress":
            stage = {"total": 1}
            told = {"run": text, "started": 0, "updated": 1, "shards": 1, "columns": [text], "stages": {text: stage}}
            (root / layout.PROGRESS).write_text(json.dumps(told | {"faults": {text: 1}}))
            return
        if where in ("column", "fingerprint", "skipped", "version"):
            fields = json.loads((root / layout.MANIFEST).read_text())
            if where == "column":
                fields["columns"][text] = "x-1-2"
            elif where == "fingerprint":
                fields["columns"]["flow"] = text
            elif where == "skipped":
                fields["skipped"] = {text: 1}
            else:
                fields["openuni"] = text
            _seal_as(root / layout.MANIFEST, Manifest, fields)
            return
        column = "depth" if where == "reason" else "rgb"
        first, *rest = columns.rows(root, 0, column)
        record = first.record
        if where == "key":
            first = replace(first, key=text, record=None if record is None else replace(record, key=text))
        elif where == "member":
            first = replace(first, members=(replace(first.members[0], field=text), *first.members[1:]))
        elif where == "reason":
            first = replace(first, status=replace(first.status, present=False, reason=text))
        elif record is not None:
            first = replace(first, record=replace(record, **{where: text}))
        _vouch(root, column, index.encode([first, *rest], column), {"first_key": first.key})

    return change


def number_in(where: str, number: float) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        if where in ("shards", "clips"):
            fields = json.loads((root / layout.MANIFEST).read_text())
            _seal_as(root / layout.MANIFEST, Manifest, fields | {where: number})
        elif where in ("samples", "present", "shard"):
            _vouch(root, "rgb", (root / layout.index_name(0, "rgb")).read_bytes(), {where: number})
        elif where == "tar size":
            record = columns.committed(root, 0, "rgb")
            assert record is not None
            tar = {"size": number, "sha256": record.tar.sha256}
            _vouch(root, "rgb", (root / layout.index_name(0, "rgb")).read_bytes(), {"tar": tar})
        else:
            first, *rest = columns.rows(root, 0, "rgb")
            assert first.record is not None
            if where in ("frames", "fps"):
                first = replace(first, record=replace(first.record, **{where: number}))
            else:
                # The last one: the payload.
                bad = replace(first.members[-1], **{where: number})
                first = replace(first, members=(*first.members[:-1], bad))
            try:
                data = index.encode([first, *rest], "rgb")
            except Exception:  # noqa: BLE001  no file can say that
                return
            _vouch(root, "rgb", data, {})

    return change


def _vouch(root: Path, column: str, data: bytes, changed: dict[str, Any]) -> None:
    """Put an index in place with a commit record that fits it."""
    (root / layout.index_name(0, column)).write_bytes(data)
    record = columns.committed(root, 0, column)
    assert record is not None
    record = replace(record, index=FileRecord(len(data), layout.digest(data)))
    _seal_as(root / layout.commit_name(0, column), CommitRecord, dataclasses.asdict(record) | changed)


def _seal_as(path: Path, kind: type, fields: dict[str, Any]) -> None:
    """Write `fields` with a checksum that fits where the class could make one."""
    fields = {name: value for name, value in fields.items() if name != "checksum"}
    try:
        value = layout.parse_json(kind, json.dumps(fields).encode(), "")
        path.write_bytes(layout.dump_checked(value))
    except OpenUniError:
        path.write_text(json.dumps(fields | {"checksum": "0" * 64}))


# Predictions.


def _write_predictions(root: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for key in KEYS[:2]:
        values = {
            "depth": rng.uniform(1, 9, (_T, _H, _W)).astype(np.float32),
            "flow": rng.uniform(-3, 3, (_T - 1, _H, _W, 2)).astype(np.float32),
            "segmentation": rng.integers(0, 3, (_T, _H, _W)).astype(np.uint8),
        }
        for task, value in values.items():
            (root / task).mkdir(parents=True, exist_ok=True)
            np.save(root / task / f"{key}.npy", value)
        (root / "video").mkdir(exist_ok=True)
        frames = rng.integers(0, 256, (_T, _H, _W, 3), dtype=np.uint8)
        (root / "video" / f"{key}.mp4").write_bytes(encode_video(list(frames), 8.0))
    (root / "predictions.json").write_text('{"depth": {"kind": "metric"}, "fps": 8}')
    return root


def _predictions(rng: random.Random) -> Iterator[Case]:
    act = call("unibench", "score", "--pred", "d", "--gt", "@/truth", "--out", "x", "--no-page",
                "--tasks", "depth,flow,segmentation")  # fmt: skip
    changes: dict[str, Change] = {"nothing": lambda root, rng: None}
    for task in ("depth", "flow", "segmentation"):
        name = f"{task}/{KEYS[0]}.npy"
        for number in range(4):
            changes[f"{name} is damaged ({number})"] = cut_or_flipped(name, within=200)
        changes[f"{name} is a pipe"] = piped(name)
        changes[f"{name} is a folder"] = foldered(name)
        changes[f"{name} is huge"] = sparse(name)
        for target in ("../outside", "/dev/zero", "nowhere"):
            changes[f"{name} is a link to {target}"] = linked(name, target)
        for kind, data in _arrays().items():
            suffix = "npz" if kind.startswith("zip") else "npy"
            changes[f"{task} is {kind}"] = instead(name, f"{task}/{KEYS[0]}.{suffix}", data)
        for suffix in ("png", "exr", "flo", "npz", "mp4"):
            changes[f"{task} is noise as {suffix}"] = instead(name, f"{task}/{KEYS[0]}.{suffix}", None)
    texts = ('{"depth": {"kind": "x"}}', "[]", "{", "[" * 200_000, '{"fps": NaN}', '{"fps": 1e999}', '{"fps": -1}',
             '{"depth": {"metres": "$(touch RAN)"}}', '{"\\u001b[2J": 1}', '{"depth": null}')  # fmt: skip
    for number, text in enumerate(texts):
        changes[f"predictions.json is {number}"] = instead("predictions.json", "predictions.json", text.encode())
    names = [text for text in NASTY if text and "/" not in text and text != ".." and len(text) < 99]
    for number, text in enumerate(names):
        changes[f"a key is nasty text {number}"] = instead("nowhere", f"depth/{text}.npy", b"\x93NUMPY nothing")
    for name, change in changes.items():
        yield Case("predictions", name, change, act)


def cut_or_flipped(name: str, within: int | None = None) -> Change:
    """A file cut short, or a few of its bits flipped: of its first `within` bytes, or of all."""

    def change(root: Path, rng: random.Random) -> None:
        data = bytearray((root / name).read_bytes())
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.choice((1, 4, 40))):
                data[rng.randrange(min(len(data), within or len(data)))] ^= 1 << rng.randrange(8)
        (root / name).write_bytes(data)

    return change


def _arrays() -> dict[str, bytes]:
    """Arrays that are not what they claim."""
    whole = io.BytesIO()
    np.save(whole, np.zeros((_T, _H, _W), np.float32))
    header = whole.getvalue()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", header[:128] + bytes(1 << 28))
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("../../escaped.npy", header)
    return {
        "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch RAN\x85R.",
        "a false shape": header.replace(b"(4, 16, 24)", b"(9999999,9)"),
        "a huge shape": header.replace(b"(4, 16, 24)", b"(1<<60,1,1)"),
        "an object array": header.replace(b"'<f4'", b"'|O' "),
        "not finite": header[:128] + b"\xff" * (len(header) - 128),
        "empty": b"",
        "zip bomb": bomb.getvalue(),
        "zip with a path": twice.getvalue(),
        "zip cut short": bomb.getvalue()[:-40],
    }


def instead(name: str, other: str, data: bytes | None) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        (root / name).unlink(missing_ok=True)
        (root / other).write_bytes(rng.randbytes(3000) if data is None else data)

    return change


# Checkpoints.


def _checkpoints(rng: random.Random) -> Iterator[Case]:
    act = call("openuni", "generate", "--checkpoint", "d", "--task", "joint", "--modality", "depth", "--prompt", "a",
                "--out", "x", "--steps", "1", "--frames", "1", "--device", "cpu")  # fmt: skip
    changes: dict[str, Change] = {}
    fields = ("width", "layers", "heads", "ffn", "modalities", "codec", "frames", "schema", "patch")
    values: tuple[Any, ...] = (-1, 0, 10**9, 2**62, "x", None, [], {}, ["rgb", "../x"], "\x1b[2J", "[red]", 3.5)
    for name in fields:
        for number, value in enumerate(values):
            changes[f"{name} is odd ({number})"] = _configured(name, value)
    for number, text in enumerate(("", "[]", "{", "null", "[" * 200_000, '{"x": 1}')):
        changes[f"config.json is {number}"] = instead("config.json", "config.json", text.encode())
    for target in ("../outside", "/dev/zero", "nowhere"):
        changes[f"config.json is a link to {target}"] = linked("config.json", target)
    changes["config.json is a pipe"] = piped("config.json")
    for number in range(8):
        changes[f"weights are damaged ({number})"] = _weights
    export = call("openuni", "export-weights", "--checkpoint", "d", "--out", "x")
    train = call("openuni", "train", "--init", "d", "--data", "@/dataset", "--out", "x", "--modalities", "depth",
                 "--steps", "1", "--global-batch-size", "1", "--device", "cpu")  # fmt: skip
    for number, (name, change) in enumerate(changes.items()):
        yield Case("checkpoints", name, change, act)
        other = ("export-weights", export) if number % 3 else ("train", train)
        yield Case("checkpoints", f"{name}; {other[0]}", change, other[1])


def _configured(name: str, value: Any) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        fields = json.loads((root / "config.json").read_text())
        (root / "config.json").write_text(json.dumps(fields | {name: value}))

    return change


def _weights(root: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(root.glob("*.safetensors")))
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        data = data[: rng.randrange(len(data))]
    else:
        for _ in range(4):
            data[rng.randrange(400)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


# Folders.


def _folders(rng: random.Random) -> Iterator[Case]:
    """A wrong `--out`: what is there stays, byte for byte."""
    there: dict[str, tuple[str, ...]] = {
        "a thesis": ("thesis.txt",),
        "a hidden draft": (".draft.tmp",),
        "commits of another program": ("commits/mine.json", "commits/000000.rgb.json"),
        "another program's dataset.json": ("dataset.json", "shards/000000.rgb.tar"),
        "shards": ("shards/000000.tar", "shards/.000001.tar.tmp"),
        "a lock and a log": ("run.lock", "log.jsonl"),
        "work": ("work/000000/photo.jpg",),
        "temporary files like ours": (".a.b.00112233.tmp", "notes"),
        "a git checkout": (".git/HEAD", "README.md"),
    }
    acts = {
        "import": call("unibench", "import", "@/davis", "--format", "davis", "--out", "d"),
        "export": call("openuni", "export", "@/dataset", "--out", "d"),
        "build": call("openuni", "build", "--source", "folder", "--videos", "@/truth/video", "--out", "d",
                       "--experts", "dis", "--workers", "0", "--min-free", "0"),
        "plan": call("openuni", "plan", "--source", "folder", "--videos", "@/truth/video", "--out", "d",
                      "--experts", "dis", "--workers", "0", "--min-free", "0"),
        "drop": call("openuni", "drop", "d", "flow"),
        "add": call("openuni", "add", "d", "dis", "--workers", "0", "--min-free", "0"),
        "pull": call("openuni", "pull", "@/dataset", "d"),
        "sources import": call("openuni", "sources", "import", "@/published", "--out", "d"),
        "collect": call("unibench", "collect", "--data", "@/dataset", "--out", "d", "--count", "1"),
        "score": call("unibench", "score", "--pred", "@/predictions", "--gt", "@/truth", "--out", "d", "--no-page",
                      "--tasks", "depth"),
    }  # fmt: skip
    for what, names in there.items():
        for name, act in acts.items():
            yield Case("folders", f"{name} into {what}", holding(names), refused(act))


def holding(names: Sequence[str]) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text('{"mine": 1}')

    return change


def refused(act: Act) -> Act:
    def refused(folder: Path) -> int:
        status = act(folder)
        return 99 if status == 0 else status

    return refused
