"""A corpus of hostile files through `openuni build --source folder`: every file is taken, or refused with a reason.
And datasets, predictions, checkpoints and folders that somebody else made, through the commands that meet them.

    python benchmarks/hostile.py --report /tmp/hostile.json
    python benchmarks/hostile.py --families datasets,folders --cases 60

Seeded. Among the videos are truncated, bit-flipped and mislabelled ones, frames of absurd size, bombs of frames and of
zip, huge declared durations, playlists that point outside, path-like names, links, pipes, and side-cars with anything
in them. Looked at afterwards: the run's exit status, each file's fate, the memory of its processes, and every path
outside the dataset. The report is written anew after every case.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import av
import numpy as np

from openuni.shards import failures, plan, verify
from openuni.shards.plan import Plans
from openuni.storage import write_atomic
from openuni.video import encode_video

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks`, when run as a file

FAMILIES = ("videos", "datasets", "measured", "predictions", "checkpoints", "folders", "pushed", "pulled", "published",
            "benchmarks", "reports")  # fmt: skip
WORKER_GIB = 1.5
"""What one worker may allocate; the bound that the memory is held to."""


@dataclass
class Report:
    """Files by kind and fate, and what was seen of the run. `problems` must be empty."""

    seed: int
    files: int = 0
    fates: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    exit_status: int = 0
    seconds: float = 0.0
    peak_worker_mib: int = 0
    cases: int = 0
    cases_seconds: float = 0.0
    slowest_seconds: float = 0.0
    peak_case_mib: int = 0
    problems: list[str] = field(default_factory=list)


class Corpus:
    """Files by kind below one folder; what a symbolic link points to lies outside it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.videos = folder / "videos"
        self.videos.mkdir(parents=True)
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.rng = random.Random(seed)
        self.kinds: dict[str, str] = {}
        self._good = [_video(number) for number in range(4)]
        (self.outside / "secret.mp4").write_bytes(self._good[0])
        (self.outside / "secret.txt").write_text("a secret caption")
        for make in (self._damaged, self._mislabelled, self._absurd, self._names, self._links, self._side_cars):
            make()

    def add(self, kind: str, name: str | bytes, data: bytes) -> None:
        path = os.path.join(os.fsencode(self.videos), os.fsencode(name))  # noqa: PTH118  names that are not UTF-8
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
        shown = os.fsdecode(os.path.normpath(os.fsencode(name))).encode("utf-8", "backslashreplace").decode()
        self.kinds[shown] = kind

    def _damaged(self) -> None:
        for number in range(10):
            self.add("whole", f"whole-{number}.mp4", self._good[number % 4])
        for number in range(80):
            data = self._good[number % 4]
            self.add("truncated", f"truncated-{number}.mp4", data[: self.rng.randrange(len(data))])
        for number in range(100):
            flipped = bytearray(self._good[number % 4])
            for _ in range(self.rng.choice((1, 3, 20, 200))):
                flipped[self.rng.randrange(len(flipped))] ^= 1 << self.rng.randrange(8)
            self.add("bit-flipped", f"flipped-{number}.mp4", bytes(flipped))
        for number in range(20):
            self.add("noise", f"noise-{number}.mp4", self.rng.randbytes(self.rng.randrange(1, 20000)))
        for number, suffix in enumerate(("mp4", "mkv", "webm", "avi", "mov")):
            self.add("empty", f"empty-{number}.{suffix}", b"")

    def _mislabelled(self) -> None:
        for suffix in ("avi", "mkv", "webm", "mov", "MP4"):
            self.add("another container's suffix", f"mp4-as.{suffix}", self._good[0])
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb", bytes(200 << 20))
        texts = {
            "zip bomb": zipped.getvalue(),
            "elf": Path(sys.executable).resolve().read_bytes()[:50000],
            "pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08touch PWN\x85R.",
            "png": _png(64, 64),
            "html": b"<html><script>alert(1)</script></html>",
            "wav": _audio(),
        }
        for name, data in texts.items():
            for number in range(3):
                self.add(f"{name} as a video", f"{name.replace(' ', '-')}-{number}.mp4", data)
        secret = self.outside / "secret.mp4"
        playlists = {
            "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
            "m3u8-bare": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
            "concat-dots": "ffconcat version 1.0\nfile ../outside/secret.mp4\n",
            "http": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        }
        for name, text in playlists.items():
            for suffix in ("mp4", "mkv"):
                self.add("playlist", f"playlist-{name}.{suffix}", text.encode())

    def _absurd(self) -> None:
        wide = _ffv1(100_000, 1, 3)
        self.add("100,000 × 1", "wide.mkv", wide)
        self.add("4 × 60,000", "tall.mkv", _ffv1(4, 60_000, 3))
        self.add("2 × 2", "speck.mkv", _ffv1(2, 2, 30))
        self.add("65,000 × 4", "strip.mkv", _ffv1(65_000, 4, 3))
        for number in range(2):
            self.add("bomb of frames", f"bomb-{number}.mkv", _ffv1(16, 16, 30_000))
        self.add("bomb of pixels", "pixels.mkv", _ffv1(16_000, 4_000, 2))
        for number in range(12):
            data = bytearray(self._good[number % 4])
            for box in (b"mvhd", b"mdhd", b"tkhd"):
                at = data.find(box)
                offset = at + 4 + (20 if box == b"tkhd" else 16)
                data[offset : offset + 4] = self.rng.choice(
                    (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01")
                )
            self.add("huge declared duration", f"duration-{number}.mp4", bytes(data))
        for number in range(12):
            data = bytearray(self._good[number % 4])
            at = data.find(b"avc1") + 4 + 24
            data[at : at + 4] = self.rng.choice((b"\xff\xff\xff\xff", b"\x00\x01\x00\x01", b"\x00\x00\x00\x00"))
            self.add("lying width and height", f"size-{number}.mp4", bytes(data))
        for number in range(8):
            data = bytearray(self._good[number % 4])
            at = data.find(b"stsz") + 4
            data[at + 8 : at + 12] = b"\x7f\xff\xff\xff"
            self.add("lying number of samples", f"count-{number}.mp4", bytes(data))

    def _names(self) -> None:
        names: list[str | bytes] = [
            "..mp4.mp4", "...mp4", ".hidden.mp4", "..%2f..%2fetc%2fpasswd.mp4", "..\\..\\up.mp4", "C:\\Windows\\x.mp4",
            "-rf.mp4", "--help.mp4", "$(touch PWN).mp4", "`touch PWN`.mp4", "; touch PWN;.mp4", "| touch PWN.mp4",
            "a\nb.mp4", "a\tb.mp4", "a\x1b[31mred.mp4", "\x7f.mp4", " .mp4", "con.mp4", "NUL.mp4", "x" * 250 + ".mp4",
            "ü" * 100 + ".mp4", "‮evil.mp4", "​.mp4", "a.b.c.depth.mkv.mp4", "pyd.pickle.mp4", "%s%n%x.mp4",
            "{0.__class__}.mp4", "case.mp4", "CASE.mp4", "[red]markup[/].mp4", "'; DROP TABLE clips;.mp4",
            "sub/../sub2/x.mp4", "a/b/c/d/e/f/g.mp4", b"latin-\xe9.mp4", b"\xff\xfe.mp4", b"\x80/\x81.mp4",
        ]  # fmt: skip
        for number, name in enumerate(names):
            self.add("path-like or strange name", name, self._good[number % 4])

    def _links(self) -> None:
        links = {
            "to-secret.mp4": self.outside / "secret.mp4",
            "to-passwd.mp4": Path("/etc/passwd"),
            "to-zero.mp4": Path("/dev/zero"),
            "to-self.mp4": self.videos / "to-self.mp4",
            "dangling.mp4": self.videos / "nowhere.mp4",
            "to-root": Path("/"),
            "to-outside": self.outside,
        }
        for name, target in links.items():
            (self.videos / name).symlink_to(target)
            if name.endswith("mp4"):
                self.kinds[name] = "link"
        for number in range(2):
            os.mkfifo(self.videos / f"pipe-{number}.mp4")
            self.kinds[f"pipe-{number}.mp4"] = "pipe"
        (self.videos / "folder.mp4").mkdir()

    def _side_cars(self) -> None:
        cars: list[tuple[str, bytes]] = [
            ("txt", bytes(range(32)) + b"control \x1b[2J characters\x00\x07"),
            ("txt", b"\xff\xfe\x00bad utf-8 \xed\xa0\x80"),
            ("txt", b"x" * (10 << 20)),
            ("txt", "‮ text \u2028 in directions".encode()),
            ("json", b"{" * 100_000),
            ("json", b"[" * 100_000 + b"]" * 100_000),
            ("json", b'{"caption": 5}'),
            ("json", b'{"caption": "\\ud800\\u0000 half a pair"}'),
            ("json", b'{"caption": "' + b"long " * 10_000 + b'"}'),
            ("json", b"not json"),
            ("json", b""),
            ("json", b'{"caption": NaN}'),
            ("json", b'{"caption": "<script>alert(1)</script> [bold]x[/]"}'),
        ]
        for number, (suffix, data) in enumerate(cars):
            self.add("side-car with anything in it", f"car-{number}.mp4", self._good[number % 4])
            (self.videos / f"car-{number}.{suffix}").write_bytes(data)
        self.add("side-car with anything in it", "car-link.mp4", self._good[0])
        (self.videos / "car-link.txt").symlink_to(self.outside / "secret.txt")


def run(folder: Path, seed: int, workers: int | None = None, options: Sequence[str] = ()) -> Report:
    """Make the corpus, build from it with these options more, and look at what came of every file."""
    report = Report(seed)
    corpus = Corpus(folder, seed)
    report.files = len(corpus.kinds)
    out = folder / "d"
    before = _outside(folder, out)
    mark = uuid.uuid4().hex
    begin = time.monotonic()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("openuni"), "build", "--source", "folder", "--videos", corpus.videos,
         "--out", out, "--experts", "dis", "--size", "48", "--shard-size", "64", "--min-free", "0",
         "--max-seconds", "3600", "--max-pixels", "50000000",
         "--worker-memory", str(WORKER_GIB), "--time-limit", "60", *options,
         *(("--workers", str(workers)) if workers else ())],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"COLUMNS": "400", "OPENUNI_HOSTILE": mark},
    )  # fmt: skip
    watch = threading.Thread(target=_watch, args=(process, mark, report), daemon=True)
    watch.start()
    _, stderr = process.communicate()
    watch.join()
    report.exit_status, report.seconds = process.returncode, time.monotonic() - begin
    if process.returncode not in (0, 3):
        report.problems.append(f"the build ended with status {process.returncode}: {stderr[-800:]}")
        return report
    _fates(report, corpus, out)
    if (after := _outside(folder, out)) != before:
        report.problems.append(f"outside the dataset: {sorted(after ^ before)[:5]}")
    for path in out.glob("shards/*.tar"):
        with tarfile.open(path) as tar:
            report.problems += [
                f"{path.name} has {n!r}" for n in tar.getnames() if not re.fullmatch(r"[\w-]{1,64}(\.\w+)+", n)
            ]
    captions = [clip.caption for clip in Plans(out, verify.manifest(out))]
    report.problems += [f"caption {c[:40]!r}" for c in captions if c and ("secret" in c or any(ord(x) < 32 for x in c))]
    if report.peak_worker_mib > 1024 * (WORKER_GIB + 1):
        report.problems.append(f"a worker took {report.peak_worker_mib} MiB")
    verified = subprocess.run(
        [Path(sys.executable).with_name("openuni"), "verify", out], capture_output=True, text=True
    )
    if verified.returncode:
        told = verified.stdout[-400:] + verified.stderr[-800:]
        report.problems.append(f"verify ended with status {verified.returncode}: {told}")
    return report


def run_cases(
    folder: Path,
    families: Sequence[str],
    seed: int,
    count: int | None,
    seconds: float,
    report: Report,
    tell: Callable[[], None],
) -> None:
    """Run the cases of these families, or `count` of them over all, each for at most `seconds`, into `report`."""
    from benchmarks import hostile_cases

    good = hostile_cases.prepare(folder / "good", families)
    cases = list(hostile_cases.cases(families, seed))
    if count is not None:
        cases = random.Random(seed).sample(cases, min(count, len(cases)))
    begin = time.monotonic()
    for number, case in enumerate(cases):
        place = folder / f"{number:04d}"
        place.mkdir()
        ended = hostile_cases.run(case, good, place, seed, seconds)
        shutil.rmtree(place)
        report.cases += 1
        report.slowest_seconds = max(report.slowest_seconds, ended.seconds)
        report.peak_case_mib = max(report.peak_case_mib, ended.mib)
        if ended.problem:
            report.problems.append(f"{ended.case}: {ended.problem}")
        report.cases_seconds = time.monotonic() - begin
        tell()


def _fates(report: Report, corpus: Corpus, out: Path) -> None:
    """Each file has clips in the dataset, or a reason for having none (or fewer)."""
    manifest = verify.manifest(out)
    clips = list(Plans(out, manifest))
    taken = {clip.video_id for clip in clips}
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    names = [plan.name_of(number) for number in range(len(plan.generations(manifest)))]
    for row in (row for name in names for row in plan.skipped(out / name)):
        reasons[re.sub(r"-\d{4}$", "", row.id)].append(row.reason)
    by_key = {clip.key: clip.video_id for clip in clips}
    for failure in failures.read(out):
        reasons[by_key[failure.key]].append(f"{failure.stage} {failure.kind}: {failure.error}")
        if failure.stage == "rgb":
            taken.discard(by_key[failure.key])
    fates: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, kind in corpus.kinds.items():
        fates[kind]["taken" if name in taken else "refused"] += 1
        if name not in taken and not reasons[name]:
            report.problems.append(f"{name!r} ({kind}) is neither taken nor refused")
    for kind in ("link", "pipe", "playlist", "100,000 × 1", "empty", "noise"):
        if fates[kind]["taken"]:
            report.problems.append(f"a {kind} was taken")
    if fates["whole"]["refused"]:
        report.problems.append("a whole video was refused")
    report.fates = {kind: dict(counts) for kind, counts in fates.items()}
    every = Counter(_general(why) for whys in reasons.values() for why in whys)
    report.reasons = dict(every.most_common(40))


def _general(reason: str) -> str:
    """A reason without the paths and numbers that make it one file's own."""
    return re.sub(r"[\d.,]+", "N", re.sub(r"\S*/\S+", "…", reason))[:100]


def _outside(folder: Path, out: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if out not in (path, *path.parents)}


def _watch(process: subprocess.Popen[str], mark: str, report: Report) -> None:
    """The largest resident set of any worker of this build, known by the mark in its environment."""
    while process.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                worker = (folder / "cmdline").read_bytes().startswith(b"ray::_Actor")
                if worker and mark.encode() in (folder / "environ").read_bytes():
                    pages = int((folder / "statm").read_text().split()[1])
                    report.peak_worker_mib = max(report.peak_worker_mib, pages * os.sysconf("SC_PAGESIZE") >> 20)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        time.sleep(0.25)


def _video(number: int) -> bytes:
    """A square that moves over a texture, 24 frames of 64 × 48."""
    rng = np.random.default_rng(number)
    frames = np.repeat(rng.integers(60, 200, (1, 48, 64, 3), dtype=np.uint8), 24, axis=0)
    for t in range(24):
        frames[t, 10 + number : 22 + number, 2 + t : 14 + t] = 240
    return encode_video(frames, 16.0)


def _ffv1(width: int, height: int, count: int) -> bytes:
    """Black frames, lossless, in Matroska: next to nothing on disk, as much in memory as its frames say."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width), np.uint8), "gray")
        for number in range(count):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()


def _png(width: int, height: int) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", np.full((height, width, 3), 99, np.uint8))[1])


def _audio() -> bytes:
    import wave

    sink = io.BytesIO()
    with wave.open(sink, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    return sink.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", default=",".join(FAMILIES), help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--cases", type=int, help="only so many, chosen by the seed over all families but videos")
    parser.add_argument("--seconds", type=float, default=10.0, help="that a case may take; more on a busy machine")
    parser.add_argument("--report", type=Path, help="where to write the report as JSON")
    options = parser.parse_args()
    families = options.families.split(",")
    report = Report(options.seed)

    def tell() -> None:
        if options.report:
            text = json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n"
            write_atomic(options.report, text.encode(), "hostile")

    with tempfile.TemporaryDirectory(prefix="openuni-hostile-") as folder:
        if "videos" in families:
            report = run(Path(folder) / "videos", options.seed)
        others = [family for family in families if family != "videos"]
        if others:
            run_cases(Path(folder), others, options.seed, options.cases, options.seconds, report, tell)
    tell()
    if others:
        print(f"{report.cases} cases in {report.cases_seconds:.0f} s, the slowest {report.slowest_seconds:.1f} s, "
              f"{report.peak_case_mib} MiB at most")  # fmt: skip
    for kind, fates in report.fates.items():
        print(f"{kind:32s}{fates.get('taken', 0):4d} taken {fates.get('refused', 0):4d} refused")
    for reason, count in report.reasons.items():
        print(f"{count:5d} × {reason}")
    for problem in report.problems:
        print(f"PROBLEM {problem}")
    print(f"{report.files} files, status {report.exit_status}, {report.seconds:.0f} s, "
          f"largest worker {report.peak_worker_mib} MiB")  # fmt: skip
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()
