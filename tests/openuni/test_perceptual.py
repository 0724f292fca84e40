"""Planted near-duplicates are found among clips that are not, with the precision and recall that the docs state."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from openuni import perceptual
from openuni.experts.scores import sampled_picture
from openuni.video import decode_video, encode_video

T, H, W, FPS = 10, 120, 160, 8.0
CLIPS = 24


def clip(seed: int) -> np.ndarray:
    """A textured scene that pans, with things that move before it."""
    rng = np.random.default_rng(seed)
    wide = np.zeros((H, W + 4 * T, 3))
    for size in (3, 6, 12, 24):
        grid = rng.uniform(-1, 1, (size, size + 2, 3)) / np.sqrt(size)
        wide += cv2.resize(grid, (W + 4 * T, H), interpolation=cv2.INTER_CUBIC)
    wide = np.clip(128 + 90 * wide, 0, 255)
    colour, at = rng.uniform(0, 255, 3), rng.uniform(20, 80, 2)
    frames = []
    for t in range(T):
        frame = wide[:, 4 * t : 4 * t + W].copy()
        cv2.circle(frame, (int(at[0] + 6 * t), int(at[1])), 14, tuple(map(float, colour)), -1)
        frames.append(frame.astype(np.uint8))
    return np.stack(frames)


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def encoded(frames: np.ndarray) -> np.ndarray:
    return decode_video(encode_video(frames, FPS))[0]


def cropped(frames: np.ndarray, share: float) -> np.ndarray:
    """`share` of each side is cut away at both edges."""
    y, x = round(H * share), round(W * share)
    return resized(frames[:, y : H - y, x : W - x], H, W)


def boxed(frames: np.ndarray) -> np.ndarray:
    small = resized(frames, H - 32, W)
    return np.pad(small, ((0, 0), (16, 16), (0, 0), (0, 0)))


def brighter(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames * 1.15 + 8, 0, 255).astype(np.uint8)


PLANTED = {
    "encoded": encoded,
    "resized": lambda frames: encoded(resized(frames, H // 2 // 2 * 2, W // 2 // 2 * 2)),
    "cropped 3 %": lambda frames: cropped(frames, 0.03),
    "cropped 7 %": lambda frames: cropped(frames, 0.07),
    "boxed": boxed,
    "brighter": brighter,
}


def hashed(frames: np.ndarray) -> tuple[int, ...]:
    return perceptual.clip_hashes(frames, sampled_picture(frames))


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [clip(seed) for seed in range(CLIPS)]


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_duplicates_are_found_with_precision_and_recall(originals: list[np.ndarray], kind: str) -> None:
    copies = [PLANTED[kind](frames) for frames in originals]
    hashes = np.array([hashed(frames) for frames in [*originals, *copies]], np.uint64)
    found = {tuple(pair) for pair in perceptual.near(hashes).tolist()}
    true = {(number, number + CLIPS) for number in range(CLIPS)}
    recall, precision = len(found & true) / len(true), len(found & true) / max(len(found), 1)
    print(f"{kind}: recall {recall:.3f}, precision {precision:.3f}")
    assert precision >= 0.97
    assert recall >= 0.9


def test_many_are_compared_by_tables_with_hardly_a_loss() -> None:
    """Eight thousand random clips; 500 copies of which each hash differs in 0 to 6 bits."""
    rng = np.random.default_rng(0)
    count, copies = 8_000, 500
    hashes = rng.integers(1, 2**64, (count, 2 * perceptual.FRAMES), np.uint64)
    planted = hashes[:copies].copy()
    for row in planted:
        for place in range(len(row)):
            for bit in rng.choice(64, rng.integers(0, 7), replace=False):
                row[place] ^= np.uint64(1) << np.uint64(bit)
    together = np.concatenate([hashes, planted])
    pairs = perceptual.near(together)
    expected = np.stack([np.arange(copies), np.arange(copies) + count], axis=1)
    assert len(pairs) <= copies  # nothing else
    found = {tuple(pair) for pair in pairs.tolist()} & {tuple(pair) for pair in expected.tolist()}
    assert len(found) >= 0.99 * copies
    across = {tuple(pair) for pair in perceptual.near(hashes, planted).tolist()}
    assert len(across & {(n, n) for n in range(copies)}) >= 0.99 * copies
    assert len(across) <= copies


def test_clips_that_show_nothing_are_like_no_other_and_clusters_are_connected() -> None:
    black = hashed(np.zeros((T, H, W, 3), np.uint8))
    assert set(black) == {perceptual.NONE}
    assert len(perceptual.near(np.array([black, black], np.uint64))) == 0
    same = np.repeat(np.array([hashed(clip(1))], np.uint64), 40, axis=0)
    assert perceptual.clusters(perceptual.near(same)) == [list(range(40))]
    assert perceptual.clusters(np.empty((0, 2), np.int64)) == []
