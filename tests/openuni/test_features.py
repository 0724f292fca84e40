"""Features in 256 bytes, and which clips they say are alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from openuni import features
from openuni.features import Codes


def noisy(codes: Codes, amount: float, seed: int) -> Codes:
    """Codes whose cosine with the given ones is about 1 / √(1 + amount²)."""
    noise = np.random.default_rng(seed).normal(0, amount * codes.std(), codes.shape)
    return np.clip(np.rint(codes + noise), -127, 127).astype(np.int8)


@pytest.fixture
def codes() -> Codes:
    rng = np.random.default_rng(5)
    return np.clip(np.rint(rng.normal(0, 30, (1000, features.SIZE))), -127, 127).astype(np.int8)


def test_a_code_keeps_the_cosine_of_two_clips() -> None:
    rng = np.random.default_rng(0)
    one = np.maximum(rng.normal(0.3, 1, (5, 1280)), 0).astype(np.float32)  # as a ReLU leaves them
    for amount in (0.2, 0.6, 2.0):
        other = one + np.float32(amount) * np.maximum(rng.normal(0.3, 1, one.shape), 0).astype(np.float32)
        a, b = (clip / np.linalg.norm(clip, axis=1, keepdims=True) for clip in (one, other))
        a, b = a.mean(axis=0), b.mean(axis=0)
        expected = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        c, d = (np.array(features.encode(clip), "<u8").view(np.int8).astype(float) for clip in (one, other))
        assert c @ d / np.linalg.norm(c) / np.linalg.norm(d) == pytest.approx(expected, abs=0.06 * (1.05 - expected**2))


def test_an_index_gives_the_codes_back_and_zeros_where_it_knows_none() -> None:
    code = features.encode(np.random.default_rng(1).uniform(0, 1, (5, 1280)).astype(np.float32))
    column = pa.chunked_array([[code, None], [[], code, [1, 2]]], pa.list_(pa.uint64()))
    codes = features.decode(column)
    assert codes.shape == (5, features.SIZE)
    assert codes.any(axis=1).tolist() == [True, False, False, True, False]
    assert tuple(codes[3].view("<u8").tolist()) == code
    assert features.near(codes, 0.9).tolist() == [[0, 3]]
    assert not len(features.near(codes[:2], 0.9))
    assert not len(features.near(codes[1:3], 0.9))


def test_many_clips_are_compared_by_an_index_that_finds_what_comparing_all_finds(
    codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch.index", reason="usearch is not installed")
    planted = np.concatenate([codes, noisy(codes[:200], 0.3, 1), noisy(codes[100:200], 0.3, 2)])
    all_compared = features.near(planted, 0.85)
    assert {(a, 1000 + a) for a in range(200)} | {(a, 1100 + a) for a in range(100, 200)} <= set(
        map(tuple, all_compared.tolist())
    )
    assert len(all_compared) == 400  # two copies of one clip are a pair, too
    monkeypatch.setattr(features, "_FEW", 0)
    asked = features.near(planted, 0.85)
    assert len(set(map(tuple, asked.tolist())) & set(map(tuple, all_compared.tolist()))) >= 396
    assert len(asked) <= 400
    assert np.array_equal(asked, features.near(planted, 0.85))
