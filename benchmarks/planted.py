"""Faults planted into real clips, and which of the rules of docs/selecting.md find them: `python -m benchmarks.planted
VIDEO…`

Each fault is put into every clip; the clip is stored and read as a dataset does it, and measured by the experts
`scores` and `scores_text`. The first table has, of each fault, the share of its clips that a rule takes for its own:
its recall, and what the others get wrong. Precision is over as many clips without the fault, those of all other rows.
Pairs in order are those of a clip with the fault and one without any, whatever the threshold. Then cameras: each clip's
first frame, moved in a known way, and the class that its flow by DIS is told as.

Videos that have text, bars or cuts of their own are no ground to plant faults into.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from benchmarks.duplicates import clips_of, even
from openuni import choosing
from openuni.experts import DecodedClip
from openuni.experts.dis import Dis
from openuni.experts.scores import Scores, motion
from openuni.experts.text_area import TextArea
from openuni.modalities import Frames
from openuni.video import decode_video, encode_video
from openuni_pipelines.engine.selecting import CAMERA

FPS = 12.0
FRAMES = 12
MOST = 4
"""Clips of one video."""
Plant = Callable[[Frames, np.random.Generator], Frames]
TEXT = "text_area > .001"
RULES = (
    "letterbox > .02",
    "pillarbox > .02",
    "static > .5",
    "flicker > 2",
    "sharpness < 50",
    "underexposed > .5",
    "overexposed > .25",
    TEXT,
)
CLASSES = ("static", "shake", "pan", "tilt", "zoom in", "zoom out", "roll")
SPEED = 0.1
"""Diagonals a second of a planted camera."""


def clean(frames: Frames, rng: np.random.Generator) -> Frames:
    return frames


def bars(axis: int) -> Plant:
    def plant(frames: Frames, rng: np.random.Generator) -> Frames:
        frames, side = frames.copy(), frames.shape[axis]
        bar = round(side * rng.uniform(0.04, 0.16))
        colour = 0 if rng.random() < 0.5 else rng.integers(0, 256, 3)
        for place in (slice(0, bar), slice(side - bar, side)):
            at: list[slice] = [slice(None)] * 4
            at[axis] = place
            frames[tuple(at)] = colour
        return frames

    return plant


def frozen(frames: Frames, rng: np.random.Generator) -> Frames:
    frames = frames.copy()
    frames[len(frames) // 3 :] = frames[len(frames) // 3]
    return frames


def flickering(frames: Frames, rng: np.random.Generator) -> Frames:
    return scaled(frames, rng.uniform(0.9, 1.1, len(frames)))


def scaled(frames: Frames, by: np.ndarray | float) -> Frames:
    gains = np.broadcast_to(by, len(frames))
    return np.stack([cv2.convertScaleAbs(frame, alpha=gain) for frame, gain in zip(frames, gains, strict=True)])


def blurred(frames: Frames, rng: np.random.Generator) -> Frames:
    sigma = rng.uniform(2, 4)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def dark(frames: Frames, rng: np.random.Generator) -> Frames:
    return scaled(frames, rng.uniform(0.01, 0.03))


def bright(frames: Frames, rng: np.random.Generator) -> Frames:
    return scaled(frames, rng.uniform(3, 6))


def subtitled(frames: Frames, rng: np.random.Generator) -> Frames:
    said = str(rng.choice(["I never said that, you know", "Where were you last night?", "No. Not again!"]))
    return written(frames, said, size=frames.shape[2] / 700, at=(0.12, 0.92))


def foreign(frames: Frames, rng: np.random.Generator) -> Frames:
    said, frames = str(rng.choice(["你昨晚在哪里？", "어젯밤 어디에 있었니?", "Где ты был вчера?"])), frames.copy()
    face, tall = cv2.FontFace("uni"), max(14, round(frames.shape[2] / 28))  # OpenCV 5 brings the letters
    for frame in frames:
        place = (round(0.2 * frame.shape[1]), round(0.92 * frame.shape[0]))
        for colour, weight in ((0, 700), (255, 400)):
            cv2.putText(frame, said, place, (colour,) * 3, face, tall, weight)
    return frames


def numbered(frames: Frames, rng: np.random.Generator) -> Frames:
    return written(frames, str(rng.integers(10, 100)), size=frames.shape[2] / 900, at=(0.9, 0.09))


def watermarked(frames: Frames, rng: np.random.Generator) -> Frames:
    marked = written(frames, "www.example.org", size=frames.shape[2] / 900, at=(0.55, 0.9))
    return cv2.addWeighted(frames, 0.5, marked, 0.5, 0)


def signed(frames: Frames, rng: np.random.Generator) -> Frames:
    return written(frames, "channel 7", size=frames.shape[2] / 900, at=(0.78, 0.09))


def written(frames: Frames, said: str, size: float, at: tuple[float, float]) -> Frames:
    frames = frames.copy()
    for frame in frames:
        place = (round(at[0] * frame.shape[1]), round(at[1] * frame.shape[0]))
        for colour, thick in ((0, 4), (255, 1)):
            cv2.putText(frame, said, place, cv2.FONT_HERSHEY_DUPLEX, size, (colour,) * 3, thick, cv2.LINE_AA)
    return frames


FAULTS: dict[str, tuple[Plant, str]] = {
    "none": (clean, ""),
    "bars above and below, 4 to 16 %": (bars(1), "letterbox > .02"),
    "bars beside, 4 to 16 %": (bars(2), "pillarbox > .02"),
    "frozen after a third": (frozen, "static > .5"),
    "brightness jumps by ±10 %": (flickering, "flicker > 2"),
    "blurred, σ 2 to 4 px": (blurred, "sharpness < 50"),
    "1 to 3 % of the light": (dark, "underexposed > .5"),
    "3 to 6 times the light": (bright, "overexposed > .25"),
    "a subtitle": (subtitled, TEXT),
    "a subtitle in Chinese, Korean or Russian": (foreign, TEXT),
    "a small sign in a corner": (signed, TEXT),
    "a number of two digits in a corner": (numbered, TEXT),
    "an address that half shows through": (watermarked, TEXT),
}


def moved(frame: Frames, how: str, rng: np.random.Generator) -> Frames:
    """A window over the middle of a frame, moved as `how` says; the scene itself stands still."""
    tall, wide = (round(side * 0.62) // 2 * 2 for side in frame.shape[:2])
    step = SPEED * np.hypot(tall, wide) / FPS
    sign, shots = (1 if rng.random() < 0.5 else -1), []
    for t in range(FRAMES):
        late = t - (FRAMES - 1) / 2
        x = y = turn = 0.0
        zoom = 1.0
        match how:
            case "pan":
                x = sign * step * late
            case "tilt":
                y = sign * step * late
            case "zoom in" | "zoom out":
                zoom = (1 + 4 * SPEED / FPS) ** (late if how == "zoom in" else -late)
            case "roll":
                turn = sign * np.degrees(4 * SPEED / FPS) * late
            case "shake":
                x, y = rng.normal(0, step, 2)
        turned = cv2.getRotationMatrix2D((frame.shape[1] / 2 + x, frame.shape[0] / 2 + y), turn, zoom)
        turned[:, 2] += wide / 2 - frame.shape[1] / 2 - x, tall / 2 - frame.shape[0] / 2 - y
        shots.append(cv2.warpAffine(frame, turned, (wide, tall), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(shots)


def stored(frames: Frames) -> Frames:
    return decode_video(encode_video(frames, FPS))[0]


def main(videos: list[Path]) -> None:
    cv2.setNumThreads(1)
    clips = [frames for video in videos for frames in islice(clips_of(video, FRAMES), MOST)]
    text = TextArea()
    text.setup()
    print(f"{len(clips)} clips of {len(videos)} videos, {FRAMES} frames each\n")
    print("| planted | " + " | ".join(RULES) + " |\n|---" + "|---" * len(RULES) + "|")
    found: dict[str, list[dict[str, float]]] = {}
    for fault, (plant, by) in FAULTS.items():
        found[fault] = []
        for n, frames in enumerate(clips):
            clip = DecodedClip("clip", stored(even(plant(frames, np.random.default_rng(n)))), FPS, {})
            # The detector costs more than all the rest: it is asked where there is text, and where nothing is planted.
            about_text = text.annotate(clip).scores if by in ("", TEXT) else {}
            found[fault].append({**Scores().annotate(clip).scores, **about_text})
        shares = ["–" if (share := taken(rule, found[fault])) is None else f"{share:.2f}" for rule in RULES]
        print(f"| {fault} | " + " | ".join(shares) + " |", flush=True)
    print("\n| rule | recall | precision | pairs in order |\n|---|---|---|---|")
    for rule in RULES:
        own = [one for fault, (_, by) in FAULTS.items() if by == rule for one in found[fault]]
        others = [one for fault, (_, by) in FAULTS.items() if by != rule for one in found[fault]]
        recall, wrong = taken(rule, own) or 0.0, (taken(rule, others) or 0.0) * len(own)
        name, is_more = rule.split()[0], ">" in rule
        higher = np.array([one[name] for one in own])[:, None] - np.array([one[name] for one in found["none"]])
        order = float(((higher if is_more else -higher) > 0).mean())
        precision = recall * len(own) / max(recall * len(own) + wrong, 1e-9)
        print(f"| `{rule}` | {recall:.2f} | {precision:.2f} | {order:.3f} |", flush=True)
    print("\n| camera | told as |\n|---|---|")
    told: dict[str, Counter[str]] = {}
    for how in CLASSES:
        told[how] = Counter(camera(moved(frames[0], how, np.random.default_rng(n))) for n, frames in enumerate(clips))
        print(
            f"| {how} | " + ", ".join(f"{what} {count}" for what, count in told[how].most_common()) + " |", flush=True
        )
    print("\n| camera | recall | precision |\n|---|---|---|")
    for how in CLASSES:
        right, named = told[how][how], sum(each[how] for each in told.values())
        print(f"| {how} | {right / len(clips):.2f} | {right / max(named, 1):.2f} |")


def taken(rule: str, clips: list[dict[str, float]]) -> float | None:
    """The share of clips that the rule takes for its own, of those that were asked."""
    name, sign, number = rule.split()
    values = np.array([one[name] for one in clips if name in one])
    if not len(values):
        return None
    return float((values > float(number) if sign == ">" else values < float(number)).mean())


def camera(frames: Frames) -> str:
    clip = DecodedClip("clip", stored(frames), FPS, {})
    scores = motion(Dis().annotate(clip).value, FPS)
    numbers = ", ".join(f"{value!r}::DOUBLE AS {name}" for name, value in scores.items())
    with choosing.Rows(f"(SELECT 'clip' AS key, *, {CAMERA} AS camera FROM (SELECT {numbers}))", "key") as rows:
        return str(rows.fetch(["camera"])["camera"][0])


if __name__ == "__main__":
    main([Path(video) for video in sys.argv[1:]])
