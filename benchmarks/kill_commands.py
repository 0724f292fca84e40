"""SIGKILL at a random moment of every writing command: the same command, run again, must end the same.

    python benchmarks/kill_commands.py --kills 20 --seed 0 --report kill_commands.json

Each command runs undisturbed once. Then, time after time, it is started in a process group of its own, the group is
killed, what lies there is looked at, and the same command is run to its end. Of four kills one comes at any time from
the start, one while the folder is held, one while files are written in it, and one just as a file (of `train`: a
checkpoint) lies there under its temporary name. (Of `openuni build` this tries `--extend`; it has `kills.py` for the
rest, which also kills workers. `unibench compare` writes nothing.) The report is written anew after every kill.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from openuni.errors import CorruptDataError
from openuni.shards import catalog, layout, takedown
from openuni.storage import MARKER, write_atomic

REPOSITORY = Path(__file__).parents[1]
CHEAP = ("export", "import", "collect", "render", "index", "select", "remove")
"""Commands that load no torch and take a second or two."""
Moment = Literal["before", "while", "after"]
_MADE = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00| UTC|Z)?|\b[0-9a-f]{40}\b")
"""When a report was made, and by which commit of this code."""
OUT = "{out}"
"""In a command line: the folder it writes."""
_DONE = ("holds a dataset already", "is not empty; choose another --out", "nothing was changed", "has no column")
"""What commands say whose folder was whole when they were killed."""
_UNDER_WAY = b"under way"
"""Stands for a whole document that says what is still to be done."""
_GROWS = ("log.jsonl", "samples.jsonl", "tensorboard/")
"""Written line by line, so cut short by a kill; of these only the journal of scores is the same in the end."""
_TIMED = ("log.jsonl", "tensorboard/")
"""Logs that tell when a step was made, and of both runs."""
_PASSING = ("samples/", "checkpoints/")
"""Pictures of a step that may be over when the next run begins, and checkpoints that make room for newer ones."""


@dataclass(frozen=True)
class Command:
    """A command line on prepared inputs. `prepare` makes the folder that it changes.

    `aim`: where a temporary file must lie, at which every fourth kill is aimed.
    """

    name: str
    line: tuple[str, ...]
    prepare: Callable[[Path], None] | None = None
    aim: str = ""

    def argv(self, out: Path) -> list[str]:
        program = Path(sys.executable).with_name(self.line[0])
        return [str(program), *(word.replace(OUT, str(out)) for word in self.line[1:])]


@dataclass
class Row:
    """What kills of one command came to."""

    command: str
    seconds: float
    moments: dict[Moment, int] = field(default_factory=dict)
    under_way: int = 0
    """Kills after which a file lay there under its temporary name."""
    identical: int = 0
    half_written: list[str] = field(default_factory=list)
    """Under their final names, right after a kill."""
    left_behind: list[str] = field(default_factory=list)
    """After the second run."""
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.moments.values())


class Harness:
    """Commands under fire in a scratch folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        # A machine with a GPU must give the same table; no command may ask anything of the network.
        quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        self._env = os.environ | quiet

    def strike(self, command: Command, kills: int, tell: Callable[[Row], None] = lambda row: None) -> Row:
        """Run `command` undisturbed, then `kills` times to a kill and again; `tell` of what was seen after each."""
        reference = self._fresh(command, "undisturbed")
        before = contents(reference)
        begin = time.monotonic()
        run = self._start(command, reference)
        held = _wait(run, lambda: (reference / layout.LOCK).exists())
        writes = _wait(run, lambda: _has_begun(reference, before))
        released = _wait(run, lambda: not (reference / layout.LOCK).exists())
        _, said = run.communicate()
        row = Row(command.name, time.monotonic() - begin)
        spans = {"any": row.seconds, "held": released - held, "writes": released - writes}
        if run.returncode:
            raise RuntimeError(f"{command.name} failed undisturbed: {said[-2000:]}")
        expected = contents(reference)
        for number in range(kills):
            self._kill_once(command, number, row, spans, before, expected)
            tell(row)
        return row

    def _kill_once(
        self,
        command: Command,
        number: int,
        row: Row,
        spans: dict[str, float],
        before: dict[str, bytes],
        expected: dict[str, bytes],
    ) -> None:
        out = self._fresh(command, f"k{number:02d}")
        run = self._start(command, out)
        since = ("any", "held", "writes", "aimed")[number % 4]
        if since in ("held", "writes"):
            _wait(run, lambda: (out / layout.LOCK).exists())
        if since in ("writes", "aimed"):
            _wait(run, lambda: _has_begun(out, before))
        if since == "aimed":
            time.sleep(self._rng.uniform(0, 0.7 * spans["writes"]))
            _wait(run, lambda: any(command.aim in path for path in _under_way(out)))
            time.sleep(self._rng.uniform(0, 0.01))
        else:
            time.sleep(self._rng.uniform(0, spans[since]))
        ended = run.poll() is not None
        if not ended:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        row.under_way += any(command.aim in path for path in _under_way(out))
        found = contents(out)
        is_begun = found != before or bool(_under_way(out))
        moment: Moment = "before" if not is_begun else "while" if not found or (out / layout.LOCK).exists() else "after"
        row.moments[moment] = row.moments.get(moment, 0) + 1
        for name, data in found.items():
            final = not any(part.startswith(".") or part == "work" for part in Path(name).parts)
            if (
                final
                and not name.startswith(_GROWS)
                and name in expected
                and data not in (expected[name], before.get(name), _UNDER_WAY)
            ):
                row.half_written.append(f"{number}: {name}")
        again = self._start(command, out)
        _, said = again.communicate()
        if again.returncode and not (moment != "before" and any(text in said for text in _DONE)):
            row.problems.append(f"{number} ({moment}): run again, it ended with {again.returncode}: {said[-600:]}")
        after = contents(out)
        row.left_behind += [f"{number}: {name}" for name in sorted(after.keys() - expected.keys()) if not _timed(name)]
        row.left_behind += [f"{number}: {path.name} beside it" for path in out.parent.iterdir() if path != out]
        differs = [
            name for name in sorted(expected) if not _timed(name) and after.get(name) != expected[name]
            and not (name.startswith(_PASSING) and name not in after)
        ]  # fmt: skip
        row.identical += not differs
        if differs:
            row.problems.append(f"{number} ({moment}): differs in {', '.join(differs[:4])}")
        print(f"{command.name:30s} {number:3d} {moment:7s} {'DIFFERS' if differs else 'identical'}", flush=True)
        shutil.rmtree(out.parent)

    def _fresh(self, command: Command, name: str) -> Path:
        """The folder to be written, alone in one of its own."""
        out = self._folder / command.name.replace(" ", "-") / name / "out"
        out.parent.mkdir(parents=True)
        if command.prepare:
            command.prepare(out)
        return out

    def _start(self, command: Command, out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command.argv(out), env=self._env, cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip


def _wait(run: subprocess.Popen[str], reached: Callable[[], bool]) -> float:
    """Wait until a state is reached or the run has ended; that time."""
    while run.poll() is None and not reached():
        time.sleep(0.0005)
    return time.monotonic()


def _has_begun(out: Path, before: dict[str, bytes]) -> bool:
    """Whether a file of the command's own is there, finished or not: not the lock and not the mark."""
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    own = {name for name in names if layout.LOCK not in name and not name.startswith(MARKER)}
    return bool(own - {name.partition("/")[0] for name in before}) or bool(_under_way(out))


def _under_way(out: Path) -> list[str]:
    """What lies below `out`, or beside it, under a temporary name, but for the lock's."""
    found = [str(Path(folder, name)) for folder, names, files in os.walk(out.parent) for name in (*names, *files)]
    return [path for path in found if path.endswith(".tmp") and layout.LOCK not in path and MARKER + "." not in path]


def contents(out: Path) -> dict[str, bytes]:
    """Every file below `out` by its name, without what may differ: the run's id, and when a report was made."""
    found: dict[str, bytes] = {}
    for path in sorted(out.rglob("*") if out.exists() else ()):
        name = path.relative_to(out).as_posix()
        if path.is_file():
            found[name] = _lasting(name, path.read_bytes())
        elif not any(path.iterdir()):
            found[f"{name}/"] = b""
    return found


def _lasting(name: str, data: bytes) -> bytes:
    if name.startswith("commits/") and name.endswith(".json") and not Path(name).name.startswith("."):
        try:
            record = json.loads(data)
        except ValueError:
            return data
        return json.dumps({key: value for key, value in record.items() if key not in ("run", "checksum")}).encode()
    if name == takedown.FILE:  # the plan of what is to be done, until it is
        return _takedowns(data)
    if name == layout.PROGRESS:  # times; but whole
        return b"" if json.loads(data) else data
    if name.endswith(".safetensors") and data:
        return _tensors(data)
    if name.startswith("checkpoints/") and name.endswith("/state.json"):
        return b"".join(line for line in data.splitlines(keepends=True) if b".safetensors" not in line)
    return _MADE.sub(b"", data) if name in ("report.json", "report.html") else data


def _takedowns(data: bytes) -> bytes:
    try:
        known = layout.parse_checked(takedown.Takedowns, data, takedown.FILE)
    except CorruptDataError:
        return data
    done = all(entry.done for entry in known.entries)
    return repr([replace(entry, when="") for entry in known.entries]).encode() if done else _UNDER_WAY


def _tensors(data: bytes) -> bytes:
    """Names, kinds, shapes and bytes of the tensors of a safetensors file, in whatever order it holds them."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        return data
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + size :]
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        first, last = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} {entry['shape']} {last - first}\n".encode())
        digest.update(body[first:last])
    return digest.hexdigest().encode()


def _timed(name: str) -> bool:
    return name.startswith(_TIMED)


def commands(folder: Path) -> list[Command]:
    """Every command on tiny inputs, which are made below `folder`."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.openuni_model.conftest import write_discs

    discs, davis, model = write_discs(folder / "discs"), make_davis(folder / "davis"), folder / "model"

    videos, built, scored = folder / "videos", folder / "built", folder / "scored"
    assert not (discs / catalog.HEAD).exists()
    _build_and_add_videos(built, videos)
    shutil.copytree(built, scored)
    _run("openuni", "add", str(scored), "scores", "--workers", "0", "--min-free", "0")

    def copy_of(dataset: Path) -> Callable[[Path], None]:
        return lambda out: shutil.copytree(dataset, out)

    made = ["--steps", "1", "--batch", "2", "--modality", "depth", "--checkpoint", str(model), "--bench", str(discs)]
    stage = folder / "tiny.toml"
    stage.write_text('modalities = ["depth"]\n')
    return [
        Command("openuni train", ("openuni", "train", "--data", str(discs), "--stage", str(stage), "--steps", "4",
                                  "--global-batch-size", "2", "--checkpoint-every", "1", "--keep", "2", "--out", OUT),
                aim="checkpoints/"),
        Command("openuni generate, est", ("openuni", "generate", "--task", "est", *made, "--out", OUT)),
        Command("openuni generate, cond", ("openuni", "generate", "--task", "cond", *made, "--out", OUT)),
        Command("unibench render", ("unibench", "render", "--scenes", "3", "--frames", "3", "--size", "48",
                                    "--shard-size", "2", "--workers", "0", "--out", OUT)),
        Command("openuni build --extend", (*_build(videos), "--extend", "--out", OUT), copy_of(built)),
        Command("openuni export-weights", ("openuni", "export-weights", "--checkpoint", str(model), "--out", OUT)),
        Command("openuni export", ("openuni", "export", str(discs), "--out", OUT)),
        Command("unibench import", ("unibench", "import", str(davis), "--format", "davis", "--shard-size", "1",
                                    "--out", OUT)),
        Command("unibench score", ("unibench", "score", "--pred", str(discs), "--gt", str(discs), "--resume",
                                   "--out", OUT)),
        Command("unibench collect", ("unibench", "collect", "--data", str(discs), "--count", "2", "--split", "val",
                                     "--out", OUT)),
        Command("openuni index", ("openuni", "index", OUT), copy_of(discs)),
        Command("openuni select", ("openuni", "select", OUT, "--where", "frames > 4", "--out", f"{OUT}/view.json"),
                copy_of(built)),
        Command("openuni dedup", ("openuni", "dedup", OUT, "--out", f"{OUT}/view.json"), copy_of(scored)),
        Command("openuni remove", ("openuni", "remove", OUT, "--video-id", "v0.mp4"), copy_of(built)),
        Command("openuni add", ("openuni", "add", OUT, "scores", "--workers", "0", "--min-free", "0"), copy_of(built)),
        Command("openuni drop", ("openuni", "drop", OUT, "flow"), copy_of(built)),
    ]  # fmt: skip


def _build(videos: Path) -> tuple[str, ...]:
    return ("openuni", "build", "--source", "folder", "--videos", str(videos), "--experts", "dis", "--workers", "0",
            "--shard-size", "2", "--min-free", "0")  # fmt: skip


def _build_and_add_videos(built: Path, videos: Path) -> None:
    """A dataset of two videos, beside which two more have come to lie since."""
    from openuni.video import encode_video
    from tests.conftest import moving_picture

    def write(number: int) -> None:
        (videos / f"v{number}.mp4").write_bytes(encode_video(moving_picture(number, 10, 48), 16.0))

    videos.mkdir()
    for number in (0, 1):
        write(number)
    _run(*_build(videos), "--out", str(built))
    for number in (2, 3):
        write(number)


def _run(program: str, *line: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name(program)), *line], check=True)


def make_model(folder: Path) -> None:
    """A model with random weights, to generate with."""
    import torch

    from openuni_model.config import preset
    from openuni_model.dit import UnifiedDiT
    from openuni_model.weights import save_model

    torch.manual_seed(0)
    tiny = UnifiedDiT(preset("nano", modalities=("rgb", "depth"), layers=1, width=32, heads=2, ffn=32))
    save_model(folder, tiny.config, tiny.state_dict(), "")


def make_davis(src: Path) -> Path:
    import cv2
    import numpy as np
    from PIL import Image

    from tests.conftest import moving_picture

    for number, name in enumerate(("bear", "camel", "swan")):
        pictures, masks = src / "JPEGImages" / "480p" / name, src / "Annotations" / "480p" / name
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        for t, frame in enumerate(moving_picture(number, 4, 48)):
            cv2.imwrite(str(pictures / f"{t:05d}.jpg"), frame[..., ::-1])
            ids = np.zeros(frame.shape[:2], np.uint8)
            ids[4 + t : 20 + t, 4 : 20 + number] = 1
            picture = Image.fromarray(ids, mode="P")
            picture.putpalette(list(np.random.default_rng(0).integers(0, 255, 768)))
            picture.save(masks / f"{t:05d}.png")
    return src


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="", help="names by comma, such as export,train  [default: all]")
    parser.add_argument("--report", type=Path, help="where to write what was seen, as JSON")
    options = parser.parse_args()
    wanted = options.commands.split(",") if options.commands else None
    rows: list[Row] = []

    def tell(row: Row) -> None:
        if options.report:
            told = {"seed": options.seed, "rows": [asdict(one) for one in (*rows, row)]}
            write_atomic(options.report, (json.dumps(told, indent=1) + "\n").encode(), "kills")

    with tempfile.TemporaryDirectory(prefix="openuni-kills-") as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        harness = Harness(Path(folder), options.seed)
        for command in commands(inputs):
            if wanted is not None and command.line[1] not in wanted:
                continue
            if command.line[1] in ("generate", "export-weights") and not (inputs / "model").exists():
                make_model(inputs / "model")
            rows.append(harness.strike(command, options.kills, tell))
    for row in rows:
        for fault in [*row.problems, *(f"half written {n}" for n in row.half_written),
                      *(f"left behind {n}" for n in row.left_behind)]:  # fmt: skip
            print(f"PROBLEM {row.command}: {fault}")
    sys.exit(any(row.problems or row.half_written or row.left_behind for row in rows))


if __name__ == "__main__":
    main()
