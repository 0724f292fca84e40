"""Datasets that travel: pushed by who got them from a stranger, pulled from a stranger's hub or folder, and imported
from a stranger's published layout or benchmark.

Cases of `benchmarks/hostile.py`, as `hostile_cases` has them. The hub is `tests/hub.py`, in the process of the case.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import fsspec
import numpy as np

import openuni_pipelines.commands.copy
import openuni_pipelines.commands.sources  # noqa: F401  a forked case starts at once
from benchmarks.hostile_cases import (
    FOLDERS,
    KEYS,
    NAMES,
    NASTY,
    NUMBERS,
    Act,
    Case,
    Change,
    call,
    cleared,
    cut_or_flipped,
    damaged,
    foldered,
    linked,
    number_in,
    piped,
    sparse,
    status_of,
    text_in,
    verify_folder,
)
from openuni.video import encode_video
from tests.hub import Hub, serving

NAME = "me/d"
URL = f"hf://datasets/{NAME}"
_SECRETS = (b"precious\n", b"photo\n", b"root:x:0")
"""What lies outside the dataset; the hub must never get it."""
_PUSHED = re.compile(
    r"(shards|index|commits)/[\w./-]+|(plan|skipped)(\.\d{4})?\.parquet|facts\.\w+\.parquet|[\w.-]+\.(json|md|parquet)|"
    r"\.openuni|\.gitattributes"
)
_LARGEST_SERVED = 1 << 24
_OTHERS = ("../../escaped", "shards/../../escaped", "/tmp/escaped", "a\\..\\b", "x" * 300, "é\u202e.json", "\x1b[2J")
"""Names of files that a hub lists beside those of the dataset."""


def cases(family: str, rng: random.Random) -> Iterator[Case]:
    """Every case of one of these families, in a fixed order."""
    makers: dict[str, Callable[[random.Random], Iterator[Case]]] = {
        "pushed": _pushed, "pulled": _pulled, "published": _published, "benchmarks": _benchmarks, "reports": _reports,
    }  # fmt: skip
    return makers[family](rng)


def _foreign(rng: random.Random, damages: int) -> dict[str, Change]:
    """What a stranger's dataset may be; a sample of links, all of the rest."""
    changes: dict[str, Change] = {"nothing": lambda root, rng: None}
    for name in (*NAMES[:12], "skipped.parquet", "takedowns.json", *FOLDERS[2:]):
        for target in ("../outside/precious", "/etc/passwd", "../outside"):
            changes[f"{name} is a link to {target}"] = linked(name, target)
    for name in (*NAMES[:12], "skipped.parquet"):
        changes[f"{name} is a pipe"] = piped(name)
        changes[f"{name} is a folder"] = foldered(name)
        changes[f"{name} is huge"] = sparse(name)
        for number in range(damages):
            changes[f"{name} is damaged ({number})"] = damaged(name)
    for number, text in enumerate(NASTY):
        where = ("key", "column", "fingerprint", "caption", "license", "reason", "member", "version")[number % 8]
        changes[f"{where} is nasty text {number}"] = text_in(where, text)
        changes[f"column is nasty text {number}"] = text_in("column", text)
    for number in NUMBERS:
        for where in ("shards", "clips", "size", "tar size", "shard"):
            changes[f"{where} is {number}"] = number_in(where, number)
    return changes


def at_hub(act: Callable[[Path, Hub], int]) -> Act:
    """`act` with a hub that only this process knows."""

    def acting(folder: Path) -> int:
        import huggingface_hub.constants as constants

        with serving() as hub:
            os.environ.update(HF_ENDPOINT=hub.url, HF_TOKEN=hub.token, HF_HOME=str(folder / "x.hub"))
            constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = hub.url, False, True
            constants.HUGGINGFACE_CO_URL_TEMPLATE = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
            return act(folder, hub)

    return acting


# Pushed.


def _push(folder: Path, hub: Hub) -> int:
    """The hub gets files of the dataset alone, and nothing that lies outside."""
    status = status_of("openuni", "push", "d", URL)
    files = hub.repositories.get(NAME, {})
    if leaked := [name for name, data in files.items() if any(secret in data for secret in _SECRETS)]:
        print(f"the hub was given what lies outside: {leaked[0]!a}")
        return 97
    if strange := [name for name in files if not _PUSHED.fullmatch(name) or ".." in name]:
        print(f"the hub was given {strange[0]!a}")
        return 98
    return status


def _pushed(rng: random.Random) -> Iterator[Case]:
    for name, change in _foreign(rng, 2).items():
        yield Case("pushed", name, change, at_hub(_push))
    for number, text in enumerate(_OTHERS):
        yield Case("pushed", f"the hub lists nasty text {number}", _unchanged, at_hub(_onto({text: b"x"})))
        there = {".openuni": b"ours", text: b"x", f"shards/{text}": b"y"}
        yield Case("pushed", f"our repository lists nasty text {number}", _unchanged, at_hub(_onto(there)))
    for number, data in enumerate((b"", b"{", b"[" * 200_000, b"null", b'{"clips": -1}', b"\x1b[2J")):
        there = {".openuni": b"ours", "dataset.json": data}
        yield Case("pushed", f"the hub's dataset.json is {number}", _unchanged, at_hub(_onto(there)))


def _onto(files: Mapping[str, bytes]) -> Callable[[Path, Hub], int]:
    def act(folder: Path, hub: Hub) -> int:
        hub.repositories[NAME] = dict(files)
        return status_of("openuni", "push", "d", URL)

    return act


def _unchanged(root: Path, rng: random.Random) -> None: ...


# Pulled.


def _pulled(rng: random.Random) -> Iterator[Case]:
    acts: dict[str, Act] = {
        "hub": at_hub(functools.partial(_pull, {})),
        "folder": lambda folder: _checked(folder, status_of("openuni", "pull", "d", "x")),
        "memory": _pull_from_memory,
    }
    for number, (name, change) in enumerate(_foreign(rng, 3).items()):
        way = "folder" if re.search("link|pipe|folder", name) else ("hub", "memory")[number % 2]
        yield Case("pulled", f"{name}; {way}", change, acts[way])
    for number, text in enumerate(_OTHERS):
        for way in ("hub", "memory"):
            act = at_hub(functools.partial(_pull, {text: b"x"})) if way == "hub" else _beside(text)
            yield Case("pulled", f"beside lies nasty text {number}; {way}", _unchanged, act)
    lied = ("dataset.json", "catalog.json", "catalog.parquet", "plan.parquet", "index/000000.rgb.parquet",
            "shards/000000.rgb.tar", "commits/000000.rgb.json")  # fmt: skip
    for name in lied:
        for size in (0, 1, 1 << 20, 1 << 40):
            yield Case("pulled", f"{name} has {size} bytes by the hub", _unchanged, at_hub(_pull_lied(name, size)))


def _served(folder: Path) -> dict[str, bytes]:
    found = (path for path in (folder / "d").rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(folder / "d").as_posix(): path.read_bytes()
        for path in found
        if path.stat().st_size <= _LARGEST_SERVED
    }


def _pull(more: Mapping[str, bytes], folder: Path, hub: Hub) -> int:
    hub.repositories[NAME] = _served(folder) | dict(more)
    hub.says = {
        path.relative_to(folder / "d").as_posix(): path.stat().st_size
        for path in (folder / "d").rglob("*")
        if path.is_file() and path.stat().st_size > _LARGEST_SERVED
    }
    hub.repositories[NAME] |= dict.fromkeys(hub.says, b"begins")
    return _checked(folder, status_of("openuni", "pull", URL, "x"))


def _pull_lied(name: str, size: int) -> Callable[[Path, Hub], int]:
    def act(folder: Path, hub: Hub) -> int:
        hub.repositories[NAME] = _served(folder)
        hub.says = {name: size}
        return _checked(folder, status_of("openuni", "pull", URL, "x"))

    return act


def _pull_from_memory(folder: Path, more: str = "") -> int:
    files = fsspec.filesystem("memory")
    for name, data in {**_served(folder), **({more: b"x"} if more else {})}.items():
        files.pipe(f"/far/d/{name}", data)
    return _checked(folder, status_of("openuni", "pull", "memory://far/d", "x"))


def _beside(text: str) -> Act:
    return lambda folder: _pull_from_memory(folder, text)


def _checked(folder: Path, status: int) -> int:
    """What was pulled is whole; what was not is no dataset, and holds no link."""
    x = folder / "x"
    links = [path for path in x.rglob("*") if path.is_symlink()] if x.exists() else []
    if links:
        print(f"it made a link: {str(links[0])!a}")
        return 96
    return 95 if status == 0 and verify_folder(x) else status


# Imported from a published layout.


def write_published(root: Path) -> Path:
    """Two clips in the hub's layout and in a training table."""
    rng = np.random.default_rng(0)
    films = root / "videos"
    films.mkdir(parents=True)
    part: dict[str, dict[str, bytes]] = {"rgb": {}, "depth": {}}
    for key in KEYS[:2]:
        small = rng.integers(0, 256, (6, 4, 6, 3), dtype=np.uint8)
        frames = [cv2.resize(frame, (48, 32)) for frame in small]
        for view, members in part.items():
            data = encode_video(frames, 8.0)
            members[f"{view}/{key}.mp4"] = data
            (films / f"{key}.{view}.mp4").write_bytes(data)
    for view, members in part.items():
        folder = root / "train" / "Made" / view
        folder.mkdir(parents=True)
        (folder / "made_part001.tar.gz").write_bytes(gzip.compress(_tar(members.items()), 1))
    rows = [(f"{key}.rgb.mp4", f"the caption of {key}", f"{key}.depth.mp4") for key in KEYS[:2]]
    _write_table(root, [("video", "prompt", "depth"), *rows])
    return root


def _published(rng: random.Random) -> Iterator[Case]:
    layout = call("openuni", "sources", "import", "d", "--out", "x", "--captions", "d/table.csv")
    table = call("openuni", "sources", "import", "d/table.csv", "--out", "x", "--videos", "d/videos")
    part = "train/Made/rgb/made_part001.tar.gz"
    view = "train/Made/depth/made_part001.tar.gz"
    changes: dict[str, Change] = {"nothing": _unchanged}
    for name in (part, view):
        for target in ("../outside/precious", "../outside", "/dev/zero", "nowhere"):
            changes[f"{name} is a link to {target}"] = linked(name, target)
        changes |= {f"{name} is a pipe": piped(name), f"{name} is a folder": foldered(name)}
        changes[f"{name} is huge"] = sparse(name)
        for number in range(8):
            changes[f"{name} is damaged ({number})"] = cut_or_flipped(name)
        for number, text in enumerate(NASTY):
            changes[f"{name} has a member of nasty text {number}"] = _with_member(name, tarfile.TarInfo(f"{text}.mp4"))
        for what, info in _members().items():
            changes[f"{name} has {what}"] = _with_member(name, info)
        for what, header in _headers().items():
            changes[f"{name} has {what}"] = _with_bytes(name, header)
        changes[f"{name} is a bomb"] = _bomb(name)
        changes[f"{name} has 20,000 members"] = _crowd(name)
    for what in ("work", "shards", "x.link"):
        changes[f"{what} is linked"] = linked(f"train/{what}", "../outside")
    changes["train is linked"] = linked("train", "../outside")
    for name, change in changes.items():
        yield Case("published", name, change, layout)
    rows: dict[str, Change] = {"nothing": _unchanged}
    for number, text in enumerate((*NASTY, "../outside/precious", "/etc/passwd", "/dev/zero", "link.mp4", "pipe.mp4")):
        for field in range(3):
            rows[f"field {field} is nasty text {number}"] = _with_row(field, text)
    for number, data in enumerate(_TABLES):
        rows[f"the table is {number}"] = _with_table(data)
    for name in ("table.csv", "videos/clip-0.rgb.mp4", "videos/clip-0.depth.mp4", "videos"):
        for target in ("../outside/precious", "/dev/zero", "nowhere"):
            rows[f"{name} is a link to {target}"] = linked(name, target)
        rows |= {f"{name} is a pipe": piped(name), f"{name} is a folder": foldered(name)}
        if name != "videos":
            rows[f"{name} is huge"] = sparse(name)
            for number in range(4):
                rows[f"{name} is damaged ({number})"] = cut_or_flipped(name)
    for name, change in rows.items():
        yield Case("published", f"table: {name}", change, table)
        if "table" in name or "field" in name:
            yield Case("published", f"captions: {name}", change, layout)
    for number, text in enumerate(_OTHERS):
        listed = f"train/Made/rgb/{text}.tar.gz"
        yield Case("published", f"the hub lists nasty text {number}", _unchanged, at_hub(_from_hub({listed: b"x"}, {})))
    for size in (-1, 0, 1, 1 << 40):
        yield Case("published", f"{part} has {size} bytes by the hub", _unchanged, at_hub(_from_hub({}, {part: size})))


_TABLES = (
    b"", b"\n\n", b"video,prompt\n\x00\x00\n", b"video\n" + b'"' * 3, b"\xff\xfev\x00i\x00", b"video,depth\n" * 3,
    b"video,prompt,depth\n" + b"a," * 100_000, b'video,prompt\nclip-0.rgb.mp4,"' + b"x" * (3 << 20),
    b"prompt,depth\nx,y\n", b"video;prompt;depth\nclip-0.rgb.mp4;x;y\n", b"<html>", b"{}",
    b"video,video,prompt\na,b,c\n", b"video,prompt\n" + b"clip-0.rgb.mp4,x\n" * 50_000,
    b"\x1b[2J,video\nx,clip-0.rgb.mp4\n",
)  # fmt: skip


def _from_hub(more: Mapping[str, bytes], sizes: Mapping[str, int]) -> Callable[[Path, Hub], int]:
    def act(folder: Path, hub: Hub) -> int:
        hub.repositories[NAME] = _served(folder) | dict(more)
        hub.says = dict(sizes)
        return status_of("openuni", "sources", "import", NAME, "--out", "x")

    return act


def _tar(members: Mapping[str, bytes] | object) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members:  # type: ignore[attr-defined]
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def _members() -> dict[str, tarfile.TarInfo]:
    """Members that are no files."""
    kinds = {"a symbolic link": tarfile.SYMTYPE, "a hard link": tarfile.LNKTYPE, "a pipe": tarfile.FIFOTYPE,
             "a device": tarfile.CHRTYPE, "a folder": tarfile.DIRTYPE, "an unknown kind": b"Z"}  # fmt: skip
    found = {}
    for what, kind in kinds.items():
        info = tarfile.TarInfo("rgb/clip-9.mp4")
        info.type, info.linkname = kind, "../../outside/precious"
        found[what] = info
    for what, headers in {
        "a name that leaves": {"path": "../../escaped.mp4"},
        "an absolute name": {"path": "/tmp/escaped.mp4"},
        "a huge size": {"size": str(1 << 60)},
        "a size that is none": {"size": "-5"},
        "a sparse map": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)},
        "a sparse size": {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,1,9,9"},
    }.items():
        info = tarfile.TarInfo("rgb/clip-9.mp4")
        info.pax_headers = headers
        found[what] = info
    return found


def _headers() -> dict[str, bytes]:
    """Headers of tar that Python would not write."""
    info = tarfile.TarInfo("rgb/clip-9.mp4")

    def of(size: bytes, kind: bytes = b"0") -> bytes:
        block = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
        block[124:136] = size.ljust(12, b"\0")
        block[156:157] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    far = b"\x80" + struct.pack(">3xQ", 1 << 50)
    return {
        "a size of 8 EiB": of(far),
        "a negative size": of(b"\xff" * 12),
        "a size of letters": of(b"zzzz"),
        "a long name of 1 PiB": of(far, b"L"),
        "a pax header of 1 PiB": of(far, b"x"),
        "an old sparse map": of(b"00000000010", b"S"),
        "no checksum": bytes(148) + b"\xff" * 364,
    }


def _with_member(name: str, info: tarfile.TarInfo) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        data = (root / "videos" / f"{KEYS[0]}.rgb.mp4").read_bytes()
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
        own = gzip.decompress((root / name).read_bytes()).rstrip(b"\0")
        own += bytes(-len(own) % 512)
        (root / name).write_bytes(gzip.compress(own + sink.getvalue(), 1))

    return change


def _with_bytes(name: str, header: bytes) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        own = gzip.decompress((root / name).read_bytes()).rstrip(b"\0")
        own += bytes(-len(own) % 512)
        (root / name).write_bytes(gzip.compress(own + header + rng.randbytes(2048), 1))

    return change


def _bomb(name: str) -> Change:
    """400 MiB of zeros as a film, in 400 KiB."""

    def change(root: Path, rng: random.Random) -> None:
        info = tarfile.TarInfo("rgb/bomb.mp4")
        info.size = 400 << 20
        with gzip.open(root / name, "wb", 6) as file:
            file.write(info.tobuf())
            for _ in range(400):
                file.write(bytes(1 << 20))
            file.write(bytes(1024))

    return change


def _crowd(name: str) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        members = ((f"rgb/{number}.txt", b"x") for number in range(20_000))
        (root / name).write_bytes(gzip.compress(_tar(members), 1))

    return change


# Imported benchmarks, compared reports.


def _benchmarks(rng: random.Random) -> Iterator[Case]:
    act = call("unibench", "import", "d", "--format", "davis", "--out", "x")
    changes: dict[str, Change] = {"nothing": _unchanged}
    mask, frame = "Annotations/480p/one/00000.png", "JPEGImages/480p/one/00001.jpg"
    for name in (mask, frame, "Annotations/480p/one", "JPEGImages/480p", "Annotations"):
        for target in ("../outside/precious", "../outside", "/dev/zero", "/", "nowhere", name.rpartition("/")[2]):
            changes[f"{name} is a link to {target}"] = linked(name, target)
        changes |= {f"{name} is a pipe": piped(name), f"{name} is a folder": foldered(name)}
    for name in (mask, frame):
        changes[f"{name} is huge"] = sparse(name)
        for number in range(8):
            changes[f"{name} is damaged ({number})"] = cut_or_flipped(name)
        for what, data in _pictures().items():
            changes[f"{name} is {what}"] = _with_file(name, data)
    for number, text in enumerate(NASTY):
        if text and "/" not in text and text != ".." and len(text) < 200:
            changes[f"a sequence is nasty text {number}"] = _with_file(f"Annotations/480p/{text}/00000.png", b"")
            changes[f"a set is nasty text {number}"] = _with_file("ImageSets/2017/val.txt", f"one\n{text}\n".encode())
    for name, change in changes.items():
        yield Case("benchmarks", name, change, act)


def _pictures() -> dict[str, bytes]:
    """Pictures that are not what they claim."""
    good = bytes(cv2.imencode(".png", np.zeros((16, 24), np.uint8))[1])

    def sized(width: int, height: int) -> bytes:
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]

    return {
        "100,000 wide": sized(100_000, 100_000), "of no size": sized(0, 0), "of 2^31": sized(2**31 - 1, 1),
        "a playlist": b"ffconcat version 1.0\nfile '../../../../../outside/precious'\n", "empty": b"",
        "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch RAN\x85R.", "text": b"\x1b[2J",
    }  # fmt: skip


def write_reports(root: Path) -> Path:
    """Two runs of which one is scored as the other is, by processes of their own: this one is to have no threads."""
    folder = root / "reports"
    for name in ("a", "b"):
        words = ["score", "--pred", root / "predictions", "--gt", root / "truth", "--out", folder / name, "--no-page"]
        command = [Path(sys.executable).with_name("unibench"), *words, "--tasks", "depth"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def _reports(rng: random.Random) -> Iterator[Case]:
    act = call("unibench", "compare", "d/a", "d/b")
    changes: dict[str, Change] = {"nothing": _unchanged}
    name = "a/report.json"
    for target in ("../outside/precious", "../outside", "/dev/zero", "nowhere", "report.json"):
        changes[f"{name} is a link to {target}"] = linked(name, target)
    changes |= {f"{name} is a pipe": piped(name), f"{name} is a folder": foldered(name)}
    changes[f"{name} is huge"] = sparse(name)
    for number in range(30):
        changes[f"{name} is damaged ({number})"] = cut_or_flipped(name)
    values = (None, [], {}, "\x1b[2J[red]", -1, 1e308, "x" * 100_000, [[[[]]]], True)
    for number, value in enumerate(values):
        for turn in range(6):
            changes[f"a field is odd ({number}, {turn})"] = _with_field(name, value)
    for number, data in enumerate((b"", b"[", b"[" * 200_000, b"null", b"{}", b'{"a": NaN}', b"\xff\xfe")):
        changes[f"{name} is text {number}"] = _with_file(name, data)
    for what, change in changes.items():
        yield Case("reports", what, change, act)


def _with_field(name: str, value: object) -> Change:
    """A value in place of another, anywhere in a document."""

    def change(root: Path, rng: random.Random) -> None:
        path = next(iter(sorted(root.glob(name.replace("/", "/**/")))))
        document = json.loads(path.read_text())
        holder, key = document, ""
        while True:
            key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
                break
            holder = inner
        holder[key] = value
        path.write_text(json.dumps(document))

    return change


def _with_file(name: str, data: bytes) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        cleared(root, name).write_bytes(data)

    return change


def _with_row(field: int, text: str) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        (root / "videos" / "link.mp4").symlink_to("../../outside/precious")
        os.mkfifo(root / "videos" / "pipe.mp4")
        row = [f"{KEYS[1]}.rgb.mp4", "a caption", f"{KEYS[1]}.depth.mp4"]
        row[field] = text
        first = (f"{KEYS[0]}.rgb.mp4", "a caption", f"{KEYS[0]}.depth.mp4")
        _write_table(root, [("video", "prompt", "depth"), first, tuple(row)])

    return change


def _with_table(data: bytes) -> Change:
    def change(root: Path, rng: random.Random) -> None:
        cleared(root, "table.csv").write_bytes(data)

    return change


def _write_table(root: Path, rows: list[tuple[str, ...]]) -> None:
    """With a column `video` of the films' paths, which is also the column of RGB."""
    with (root / "table.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
