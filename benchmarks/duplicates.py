"""Copies of real clips that `dedup` finds, by hashes and by features, and pairs of different videos that it takes for
copies: `python benchmarks/duplicates.py VIDEO…`

Every video is cut into clips of two seconds, and of each clip a copy of every kind is made. Clips of one video are not
held against each other: they often do show the same.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from openuni import features, perceptual
from openuni.experts import DecodedClip
from openuni.experts.clip_features import ClipFeatures
from openuni.experts.scores import sampled_picture
from openuni.modalities import Frames
from openuni.video import decode_video, encode_video

LONGER_SIDE = 480
FRAMES = 24
EVERY = 2
COSINES = (0.80, 0.85, 0.90)


def coded_again(frames: Frames) -> Frames:
    half = [cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in frames]
    blocky = [cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1) for frame in half]
    return even(np.stack(blocky))


def cropped(share: float) -> Callable[[Frames], Frames]:
    def crop(frames: Frames) -> Frames:
        _, height, width, _ = frames.shape
        y, x = round(height * share), round(width * share)
        return even(frames[:, y : height - y, x : width - x])

    return crop


def mirrored(frames: Frames) -> Frames:
    return np.ascontiguousarray(frames[:, :, ::-1])


def captioned(frames: Frames) -> Frames:
    frames = frames.copy()
    for frame in frames:
        height, width, _ = frame.shape
        at, size = (width // 20, height - height // 12), width / 640
        cv2.putText(frame, "I never said that, you know", at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 2)
        cv2.rectangle(frame, (width - width // 6, 8), (width - 8, height // 10), (255, 0, 0), -1)
    return frames


def later(frames: Frames) -> Frames:
    """Begins a third later: what is missing is its end again, backwards."""
    third = len(frames) // 3
    return np.concatenate([frames[third:], frames[: -third - 1 : -1]])


KINDS: dict[str, Callable[[Frames], Frames]] = {
    "half the size, coarsely coded": coded_again,
    "cropped by 7 % at each edge": cropped(0.07),
    "cropped by 15 %": cropped(0.15),
    "mirrored": mirrored,
    "captioned, with a logo": captioned,
    "mirrored, cropped by 7 %, captioned": lambda frames: captioned(cropped(0.07)(mirrored(frames))),
    "begins a third later": later,
}


def even(frames: Frames) -> Frames:
    return np.ascontiguousarray(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2])


def clips_of(video: Path, length: int = FRAMES) -> Iterator[Frames]:
    frames: list[Frames] = []
    with av.open(str(video), metadata_errors="ignore") as container:
        for picture in itertools.islice(container.decode(video=0), 0, None, EVERY):
            frame = picture.to_ndarray(format="rgb24")
            scale = min(1.0, LONGER_SIDE / max(frame.shape))
            frames.append(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
            if len(frames) == length:
                yield even(np.stack(frames))
                frames = []


def main() -> None:
    cv2.setNumThreads(1)
    expert = ClipFeatures()
    expert.setup()

    def known(frames: Frames) -> tuple[tuple[int, ...], tuple[int, ...]]:
        stored = decode_video(encode_video(frames, 12.0))[0]
        code = expert.annotate(DecodedClip("clip", stored, 12.0, {})).value.hashes
        return perceptual.clip_hashes(stored, sampled_picture(stored)), code

    clips = [(video, frames) for video in map(Path, sys.argv[1:]) for frames in clips_of(video)]
    originals = [known(frames) for _, frames in clips]
    hashes = np.array([one[0] for one in originals], np.uint64)
    codes = np.array([one[1] for one in originals], "<u8").view(np.int8)
    print(f"{len(clips)} clips of {len({video for video, _ in clips})} videos")
    print(f"{'':38}hashes " + " ".join(f"≥ {cosine:.2f}" for cosine in COSINES))
    same = np.arange(len(clips))
    for kind, copy in KINDS.items():
        copies = [known(copy(frames)) for _, frames in clips]
        found = [np.isin(same, np.array([a for a, b in perceptual.near(hashes, as_hashes(copies)) if a == b])).mean()]
        theirs = np.array([one[1] for one in copies], "<u8").view(np.int8)
        found += [(own_cosine(codes, theirs) >= cosine).mean() for cosine in COSINES]
        print(f"{kind:38}" + " ".join(f"{share:6.2f}" for share in found))
    by_hashes = wrong(perceptual.near(hashes), clips)
    by_features = [wrong(features.near(codes, cosine), clips) for cosine in COSINES]
    print(
        f"{'pairs of different videos, of ' + str(pairs_of(clips)):38}"
        + " ".join(f"{n:6}" for n in [by_hashes, *by_features])
    )


def as_hashes(clips: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> perceptual.Hashes:
    return np.array([one[0] for one in clips], np.uint64)


def own_cosine(a: features.Codes, b: features.Codes) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def wrong(pairs: perceptual.Pairs, clips: list[tuple[Path, Frames]]) -> int:
    return sum(clips[a][0] != clips[b][0] for a, b in pairs)


def pairs_of(clips: list[tuple[Path, Frames]]) -> int:
    return sum(a[0] != b[0] for a, b in itertools.combinations(clips, 2))


if __name__ == "__main__":
    main()
