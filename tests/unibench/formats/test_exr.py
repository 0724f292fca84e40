"""OpenEXR: windows, parts, Cryptomatte, hostile headers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from unibench.formats.exr import cryptomatte, read_exr

OpenEXR = pytest.importorskip("OpenEXR")


def write(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    fixed = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File({**fixed, **header}, channels).write(str(path))
    return path


@pytest.mark.parametrize(
    "window", [(0, 0, 2**30, 2**30), (0, 0, 200_000, 200_000), (-(2**31), -(2**31), 2**31 - 1, 2**31 - 1), (5, 5, 4, 4)]
)
@pytest.mark.parametrize("which", ["dataWindow", "displayWindow"])
def test_hostile_windows_are_refused_before_memory_is_taken(
    tmp_path: Path, window: tuple[int, ...], which: str
) -> None:
    data = bytearray(write(tmp_path / "a.exr", {"Z": np.zeros((4, 4), np.float32)}).read_bytes())
    name = which.encode() + b"\0box2i\0"
    struct.pack_into("<4i", data, data.find(name) + len(name) + 4, *window)
    (tmp_path / "a.exr").write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"a\.exr"):
        read_exr(tmp_path / "a.exr")


def test_more_pixels_than_any_compression_could_hold_are_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.exr", {"Z": np.zeros((4, 4), np.float32)}).read_bytes())
    for name in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
        struct.pack_into("<4i", data, data.find(name) + len(name) + 4, 0, 0, 3999, 3999)
    (tmp_path / "a.exr").write_bytes(data)
    with pytest.raises(CorruptDataError, match="claims"):
        read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("cut", [3, 40, 200, 600, 9000, -1])
def test_cut_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.exr", {"Z": np.random.default_rng(0).random((64, 64)).astype(np.float32)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptDataError, match=r"a\.exr"):
        read_exr(path)


def test_missing_double_and_half_channels_are_named(tmp_path: Path) -> None:
    square = np.ones((4, 4), np.float32)
    exr = read_exr(write(tmp_path / "a.exr", {"a.D.R": square, "b.D.R": square, "H.R": square.astype(np.float16)}))[0]
    with pytest.raises(CorruptDataError, match=r"no channels end in 'Q\.R'"):
        exr.single("Q.R")
    with pytest.raises(CorruptDataError, match="2 channels"):
        exr.single("D.R")
    with pytest.raises(InvalidAnnotationError, match=r"H\.R is float16"):
        exr.single("H.R")


@pytest.mark.parametrize("name", ["t01", "t05", "t08", "t15"])
def test_real_windows_land_in_the_display_window(shared_data: Path, name: str) -> None:
    (exr,) = read_exr(shared_data / "exr" / f"{name}.exr")
    raw = OpenEXR.File(str(shared_data / "exr" / f"{name}.exr"), separate_channels=True).parts[0]
    (x0, y0), (x1, y1) = (np.asarray(v).tolist() for v in raw.header["displayWindow"])
    (u0, v0), _ = (np.asarray(v).tolist() for v in raw.header["dataWindow"])
    for channel, values in exr.channels.items():
        assert values.shape == (y1 - y0 + 1, x1 - x0 + 1)
        source = raw.channels[channel].pixels
        for x, y in ((max(x0, u0), max(y0, v0)), (x0 + 50, y0 + 60)):
            if 0 <= y - v0 < source.shape[0] and 0 <= x - u0 < source.shape[1]:
                assert values[y - y0, x - x0] == source[y - v0, x - u0]


def test_a_real_multipart_file_keeps_its_parts_and_its_half_floats(shared_data: Path) -> None:
    parts = read_exr(shared_data / "exr" / "multipart.0001.exr")
    assert len(parts) == 10
    depth = next(p for p in parts if set(p.channels) == {"Z"})
    assert depth.channels["Z"].shape == (1556, 2048)
    with pytest.raises(InvalidAnnotationError, match="float16"):
        depth.single("Z")


def test_real_cryptomatte_names_what_its_pixels_show(shared_data: Path) -> None:
    folder = shared_data / "exr" / "cryptomatte"
    for file, layer in (("sidecar_manifest.exr", "crypto_asset"), ("special_chars.exr", "")):
        exr = read_exr(folder / file)[0]
        hashes, names = cryptomatte(exr, layer) if layer else cryptomatte(exr, _first(exr.header))
        shown = set(np.unique(hashes).tolist()) - {0}
        assert shown
        assert shown <= set(names)


def _first(header: object) -> str:
    return next(str(v) for k, v in header.items() if k.startswith("cryptomatte/") and k.endswith("/name"))  # type: ignore[attr-defined]


def test_a_swapped_byte_order_in_hashes_is_named(tmp_path: Path) -> None:
    values = np.full((4, 4), 0x28322E9, np.uint32)
    header = {
        "cryptomatte/abc1234/name": "ActorHitProxyMask",
        "cryptomatte/abc1234/manifest": '{"cube": "028322e9"}',
    }
    good = write(tmp_path / "good.exr", {"ActorHitProxyMask00.R": values.view(np.float32)}, **header)
    hashes, names = cryptomatte(read_exr(good)[0], "ActorHitProxyMask")
    assert names[int(hashes[0, 0])] == "cube"
    bad = write(tmp_path / "bad.exr", {"ActorHitProxyMask00.R": values.byteswap().view(np.float32)}, **header)
    with pytest.raises(InvalidAnnotationError, match="byte order"):
        cryptomatte(read_exr(bad)[0], "ActorHitProxyMask")


def test_a_manifest_beside_the_file_is_never_sought_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "m.json").write_text('{"cube": "028322e9"}')
    header = {"cryptomatte/a/name": "Id", "cryptomatte/a/manif_file": "../m.json"}
    path = write(tmp_path / "in" / "a.exr", {"Id00.R": np.zeros((4, 4), np.float32)}, **header)
    with pytest.raises(CorruptDataError, match="no manifest"):
        cryptomatte(read_exr(path)[0], "Id")
