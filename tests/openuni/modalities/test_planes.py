"""The lossless codec: nothing changes, nothing foreign gets through, the same bytes every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import CorruptDataError
from openuni.modalities.planes import decode_planes, encode_planes

SHAPES = [
    (1, 1, 1),
    (1, 1, 9),
    (3, 9, 1),
    (2, 17, 33),
    (1, 288, 352),
    (1, 289, 3),
    (1, 700, 1),
    (1, 1, 353),
    (2, 301, 353),
]


def noise(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_size_and_type_comes_back_bit_for_bit(shape: tuple[int, int, int], dtype: type) -> None:
    array = noise(shape, dtype)
    back = decode_planes(encode_planes(array), *shape, dtype)
    assert back.dtype == dtype
    assert np.array_equal(back, array)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16]))
def test_random_small_sizes_come_back_bit_for_bit(frames: int, height: int, width: int, dtype: type) -> None:
    array = noise((frames, height, width), dtype)
    assert np.array_equal(decode_planes(encode_planes(array), frames, height, width, dtype), array)


def test_two_processes_write_the_same_bytes() -> None:
    code = (
        "import numpy as np, hashlib; from openuni.modalities.planes import encode_planes;"
        "a = np.arange(5*401*403, dtype=np.uint32).astype(np.uint16).reshape(5, 401, 403);"
        "print(hashlib.sha256(encode_planes(a)).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    array = np.arange(5 * 401 * 403, dtype=np.uint32).astype(np.uint16).reshape(5, 401, 403)
    assert run.stdout.strip() == hashlib.sha256(encode_planes(array)).hexdigest()


@pytest.mark.parametrize("bits", [10, 12])
def test_fewer_bits_come_back_bit_for_bit_and_are_read_as_such_alone(bits: int) -> None:
    array = noise((2, 301, 353), np.uint16) >> (16 - bits)
    data = encode_planes(array, bits)
    assert np.array_equal(decode_planes(data, *array.shape, np.uint16, bits=bits), array)
    assert data == encode_planes(array, bits)
    with pytest.raises(CorruptDataError, match=f"gray{bits}le"):
        decode_planes(data, *array.shape, np.uint16)


@pytest.mark.parametrize("wrong", [(4, 20, 30), (2, 20, 30), (3, 21, 30), (3, 20, 31)])
def test_another_size_or_frame_count_is_refused(wrong: tuple[int, int, int]) -> None:
    data = encode_planes(noise((3, 20, 30), np.uint16))
    with pytest.raises(CorruptDataError, match="planes"):
        decode_planes(data, *wrong, np.uint16)


def test_another_depth_of_bits_is_refused() -> None:
    with pytest.raises(CorruptDataError, match="gray16le"):
        decode_planes(encode_planes(noise((1, 4, 4), np.uint16)), 1, 4, 4, np.uint8)


@pytest.mark.parametrize("keep", [0, 3, 200, -5000])
def test_a_cut_file_is_refused(keep: int) -> None:
    data = encode_planes(noise((9, 40, 40), np.uint16))
    with pytest.raises(CorruptDataError, match="planes"):
        decode_planes(data[:keep], 9, 40, 40, np.uint16)


def test_bytes_that_name_other_files_are_refused(tmp_path) -> None:
    (tmp_path / "a.mkv").write_bytes(encode_planes(noise((1, 4, 4), np.uint8)))
    playlist = f"ffconcat version 1.0\nfile {tmp_path / 'a.mkv'}\n".encode()
    with pytest.raises(CorruptDataError, match="planes"):
        decode_planes(playlist, 1, 4, 4, np.uint8)
