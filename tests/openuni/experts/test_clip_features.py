"""Features of clips, by the published network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni import assets, features, perceptual
from openuni.errors import AssetError
from openuni.experts import DecodedClip
from openuni.experts.clip_features import WEIGHTS, ClipFeatures
from openuni.modalities import Box, Frames
from openuni.video import decode_video, encode_video

FPS = 12.0
pytest.importorskip("timm", reason="timm is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def expert(asset: Callable[[str], Path]) -> Iterator[ClipFeatures]:
    asset(WEIGHTS.name)
    made = ClipFeatures()
    made.setup()
    yield made
    made.teardown()


def test_features_are_those_of_the_published_network(expert: ClipFeatures, asset: Callable[[str], Path]) -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    network = published.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(asset(WEIGHTS.name), weights_only=True))
    network.eval()
    frames = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    images = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        expected = network.extract_features(images).mean((2, 3)).numpy()
    found = expert.look(frames)
    assert found.shape == (3, 1280)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_copies_that_no_hash_finds_are_alike_and_other_clips_are_not(
    expert: ClipFeatures, asset: Callable[[str], Path]
) -> None:
    films = [clip for name in ("demo-bigbuckbunny", "demo-bikes", "demo-carphone") for clip in clips_of(asset(name))]
    copies = [copy(clip) for clip in films for copy in (mirrored, cropped, captioned)]
    stored = [decode_video(encode_video(clip, FPS))[0] for clip in (*films, *copies)]

    hashes = np.array([perceptual.clip_hashes(c, Box(0, 0, c.shape[2], c.shape[1])) for c in stored], np.uint64)
    codes = np.array([expert.annotate(DecodedClip("c", c, FPS, {})).value.hashes for c in stored], "<u8").view(np.int8)
    planted = {(n, len(films) + 3 * n + kind) for n in range(len(films)) for kind in range(3)}
    by_hashes = planted & set(map(tuple, perceptual.near(hashes).tolist()))
    by_features = set(map(tuple, features.near(codes, 0.8).tolist()))
    assert len(by_hashes) <= 0.5 * len(planted)
    assert len(by_features & planted) == len(planted)
    # No clip of one film is taken for one of another.
    film = [*range(len(films)), *(n for n in range(len(films)) for _ in range(3))]
    assert {(film[a], film[b]) for a, b in by_features} == {(n, n) for n in range(len(films))}


def test_weights_of_another_network_are_refused(
    expert: ClipFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    monkeypatch.setattr(assets, "path", lambda asset: tmp_path / "other.pth")
    with pytest.raises(AssetError, match=r"other\.pth does not fit EfficientNet"):
        ClipFeatures().setup()


def clips_of(film: Path) -> list[Frames]:
    frames = decode_video(film.read_bytes())[0][:24:2]
    scale = 320 / max(frames.shape)
    small = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]
    return [even(np.stack(small))]


def mirrored(frames: Frames) -> Frames:
    return np.ascontiguousarray(frames[:, :, ::-1])


def cropped(frames: Frames) -> Frames:
    _, height, width, _ = frames.shape
    y, x = height // 10, width // 10
    return even(frames[:, y : height - y, x : width - x])


def captioned(frames: Frames) -> Frames:
    frames = frames.copy()
    for frame in frames:
        height, width, _ = frame.shape
        cv2.putText(frame, "I never said that", (10, height - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        cv2.rectangle(frame, (width - 60, 5), (width - 5, 25), (255, 0, 0), -1)
    return frames


def even(frames: Frames) -> Frames:
    return np.ascontiguousarray(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2])
