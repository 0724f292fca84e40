"""Arrays from outside: no pickle, no bomb, no false header."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from openuni.errors import CorruptDataError
from openuni.modalities.stored import Layout, pack_arrays, unpack_arrays

EXPECTED = {"a": Layout(np.float32, (3, 4))}
GOOD = np.arange(12, dtype=np.float32).reshape(3, 4)


def archive(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_arrays_come_back_and_the_bytes_repeat() -> None:
    assert np.array_equal(unpack_arrays(pack_arrays({"a": GOOD}), EXPECTED)["a"], GOOD)
    assert pack_arrays({"a": GOOD}) == pack_arrays({"a": GOOD})


def test_numpy_reads_what_we_write() -> None:
    with np.load(io.BytesIO(pack_arrays({"a": GOOD})), allow_pickle=False) as file:
        assert np.array_equal(file["a"], GOOD)


def test_a_pickle_is_never_run() -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    trapped = np.empty((3, 4), object)
    trapped[:] = Trap()
    for members in ({"a.npy": npy(trapped)}, {"a.npy": pickle.dumps(Trap())}):
        with pytest.raises(CorruptDataError):
            unpack_arrays(archive(members), EXPECTED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 not a zip",
        archive({}),
        archive({"b.npy": npy(GOOD)}),
        archive({"a": npy(GOOD)}),
        archive({"../a.npy": npy(GOOD)}),
        archive({"a.npy": npy(GOOD)}, zipfile.ZIP_LZMA),
        archive({"a.npy": npy(GOOD), "b.npy": npy(GOOD)}),
        archive({"a.npy": npy(GOOD.astype(np.float64))}),
        archive({"a.npy": npy(GOOD.reshape(4, 3))}),
        archive({"a.npy": npy(np.asfortranarray(GOOD))}),
        archive({"a.npy": npy(GOOD)[:-8]}),
        archive({"a.npy": npy(GOOD).replace(b"(3, 4)", b"(9, 9)")}),
        archive({"a.npy": npy(np.zeros(10**7, np.float32))}),
        archive({"a.npy": b"\x93NUMPY\x09\x00" + b"x" * 200}),
        archive({"a.npy": npy(GOOD)})[:-30],
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptDataError, match="npz"):
        unpack_arrays(data, EXPECTED)


def test_a_flipped_bit_is_refused() -> None:
    data = bytearray(pack_arrays({"a": GOOD}))
    data[90] ^= 4
    with pytest.raises(CorruptDataError):
        unpack_arrays(bytes(data), EXPECTED)
