"""Tars of strangers: what cannot be read on is said, and no header takes memory or time beyond what is there."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from openuni.errors import AssetError, PlanError
from openuni.sources import Request, Skipped
from openuni.sources.published import Tars, TrainingTable
from openuni.sources.webdataset import WebDataset


def _tar(samples: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number in range(samples):
            for suffix in ("mp4", "txt"):
                info = tarfile.TarInfo(f"rgb/{number:04d}.{suffix}")
                info.size = 600
                tar.addfile(info, io.BytesIO(b"x" * 600))
    return sink.getvalue()


def _header(size: bytes, kind: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo("rgb/far.mp4").tobuf(tarfile.USTAR_FORMAT)[:512])
    block[124:136], block[156:157], block[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _behind(data: bytes, header: bytes) -> bytes:
    """`data` without its end, and a header behind it."""
    members = data.rstrip(b"\0")
    return members + bytes(-len(members) % 512) + header + bytes(512)


FAR = b"\x80" + struct.pack(">3xQ", 1 << 50)
_FLIPPED = bytearray(_tar(6))
_FLIPPED[4 * 1536 + 5] ^= 1  # of the third sample
DAMAGED = {
    "a flipped bit in a header": (bytes(_FLIPPED), 1, "the header at byte 6,144 is damaged"),
    "cut within a header": (_tar(6)[: 3 * 3072 + 100], 2, "the header at byte 9,216 is damaged"),
    "a name of 1 PiB": (_behind(_tar(6), _header(FAR, b"L")), 5, "a header of 1,125,899,906,842,624 bytes"),
    "fields of 1 PiB": (_behind(_tar(6), _header(FAR, b"x")), 5, "a header of 1,125,899,906,842,624 bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_samples_before_the_damage_are_kept_and_the_damage_is_said(tmp_path: Path, what: str) -> None:
    """Python takes a damaged header for the end: four samples of six were lost without a word. Of the last sample
    before it, members may be missing."""
    data, samples, reason = DAMAGED[what]
    (tmp_path / "0.tar").write_bytes(data)
    listed = list(WebDataset().listing(Request(tmp_path)))
    assert len(listed) == samples
    assert all(isinstance(one, str) for one in listed)
    rows = list(WebDataset().entries(Request(tmp_path)))
    said = [row for row in rows if isinstance(row, Skipped) and row.id == "0.tar"]
    assert reason in said[0].reason


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-8] + b"four" + data[-4:], "CRC check failed"),
        (lambda data: data + gzip.compress(b"x" * (1 << 21), mtime=0), "it goes on behind its end"),
    ],
)
def test_a_part_whose_checksum_is_wrong_or_that_goes_on_is_refused(
    tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    """Reading stopped where the tar ends, before the checksum."""
    folder = tmp_path / "train" / "Made" / "rgb"
    folder.mkdir(parents=True)
    whole = gzip.compress(_tar(2), mtime=0)
    (folder / "a_part001.tar.gz").write_bytes(whole)
    (tmp_path / "scratch").mkdir()
    (part,) = Tars(str(tmp_path)).parts()
    assert [film.id for film in part.films(lambda id: True, tmp_path / "scratch")] == ["0000", "0001"]
    (folder / "a_part001.tar.gz").write_bytes(spoil(whole))
    (part,) = Tars(str(tmp_path)).parts()
    with pytest.raises(AssetError, match=f"cannot be read to its end .{reason}"):
        list(part.films(lambda id: True, tmp_path / "scratch"))


@pytest.mark.parametrize("size", [FAR, b"\xff" * 12])
def test_a_part_with_a_member_that_ends_nowhere_is_refused_at_once(tmp_path: Path, size: bytes) -> None:
    """The reader went on through a pebibyte that was not there."""
    folder = tmp_path / "train" / "Made" / "rgb"
    folder.mkdir(parents=True)
    (folder / "a_part001.tar.gz").write_bytes(gzip.compress(_behind(_tar(1), _header(size, b"0"))))
    (part,) = Tars(str(tmp_path)).parts()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(AssetError, match="cannot be read to its end"):
        list(part.films(lambda id: True, scratch))


def test_a_table_that_is_a_hole_is_refused_at_once(tmp_path: Path) -> None:
    with (tmp_path / "table.csv").open("wb") as file:
        file.truncate(1 << 38)
    with pytest.raises(PlanError, match="has a line of more than 1,048,576 characters"):
        TrainingTable(tmp_path / "table.csv", tmp_path).parts()
