"""Clips of the kinds that fooled the light path: made of real films, built by default, and held to what they show.

    python benchmarks/kinds.py FILMS OUT [--only NAME …]

FILMS is a folder with `sam2_05_default_juggle.mp4` (a juggler alone), `sam2_01_dog.mp4` (a woman and her dog),
`mmaction2_demo_skeleton.mp4` (two men who embrace) and `cotracker_bear.mp4` (no people). The videos come to
`OUT/videos`, the dataset to `OUT/data`, and a table of what was expected and found is printed. No number of it is
fitted to anything: it says what holds and what does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

import openuni
from openuni.sample import Sample, Subset
from openuni.shards import routing
from openuni.video import encode_video, read_frames
from openuni_pipelines.engine.build import BuildConfig, build
from openuni_pipelines.engine.run import Execution

Frame = npt.NDArray[np.uint8]
FPS, WIDTH, HEIGHT = 16, 480, 270
LOW = 0.5
FILMS = {
    "juggler": "sam2_05_default_juggle.mp4",
    "woman": "sam2_01_dog.mp4",
    "men": "mmaction2_demo_skeleton.mp4",
    "bear": "cotracker_bear.mp4",
}
Films = Mapping[str, Sequence[Frame]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a clip shows. `None`: not asked."""

    clips: int = 1
    subset: Subset | None = None
    doubted: bool = False
    """No confidence of anybody reaches LOW."""
    empty: bool = False
    """Nobody and nothing of a score from .4 on."""
    repeated: float = 0.0
    """Least share of pairs that are said to repeat a frame of a slow source."""


@dataclass(frozen=True, slots=True)
class Kind:
    make: Callable[[Films], Iterable[Frame]]
    expected: Expected


def moving(step: float, *, of: int = 24) -> npt.NDArray[np.float64]:
    """Offsets of a hand-held camera in pixels `[of, 2]`, which drifts and trembles."""
    tremble = np.random.default_rng(0).normal(0, 0.5, (of, 2))
    return np.cumsum(np.full((of, 2), [step, step / 3]), axis=0) + tremble


def shifted(picture: Frame, offset: Sequence[float]) -> Frame:
    motion = np.array([[1.0, 0, -offset[0]], [0, 1, -offset[1]]])
    return np.asarray(cv2.warpAffine(picture, motion, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.uint8)


def noisy(frames: Iterable[Frame], sigma: float = 3.0) -> list[Frame]:
    rng = np.random.default_rng(1)
    return [np.clip(frame + rng.normal(0, sigma, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def dissolve(one: Sequence[Frame], other: Sequence[Frame], seconds: float) -> list[Frame]:
    """A second of the one, the mixture, a second of the other."""
    shares = np.concatenate([np.zeros(FPS), np.linspace(0, 1, round(seconds * FPS)), np.ones(FPS)])
    mixed = zip(one, other, shares, strict=False)
    return [np.asarray((1 - share) * a + share * b, np.uint8) for a, b, share in mixed]


def fade(one: Sequence[Frame], other: Sequence[Frame]) -> list[Frame]:
    """Down to black and up again, in half a second each."""
    ramp = np.linspace(1, 0, FPS // 2)
    levels = np.concatenate([np.ones(20), ramp, np.zeros(6), ramp[::-1], np.ones(20)])
    shown = [*one[: 20 + FPS // 2 + 3], *other]
    return [np.asarray(level * frame, np.uint8) for level, frame in zip(levels, shown, strict=False)]


def on_a_wall(quad: Sequence[tuple[int, int]]) -> Callable[[Sequence[Frame]], list[Frame]]:
    """A film in a frame on a wall, seen by a camera that is held by hand; corners from the upper left, clockwise."""

    def show(film: Sequence[Frame]) -> list[Frame]:
        corners = np.array([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], np.float32)
        place = cv2.getPerspectiveTransform(corners, np.array(quad, np.float32))
        rng = np.random.default_rng(2)
        wall = cv2.GaussianBlur(rng.normal(150, 60, (HEIGHT, WIDTH, 3)), (0, 0), 12)
        wall = np.clip(150 + 4 * (wall - 150), 0, 255).astype(np.uint8)
        centre = np.mean(quad, axis=0)
        border = np.array([centre + 1.1 * (corner - centre) for corner in np.array(quad)], np.int32)
        cv2.fillConvexPoly(wall, border, (25, 25, 28))
        inside = cv2.warpPerspective(np.full((HEIGHT, WIDTH), 255, np.uint8), place, (WIDTH, HEIGHT)) > 0
        made = []
        for frame, offset in zip(film, moving(0.4), strict=False):
            seen = wall.copy()
            seen[inside] = cv2.warpPerspective(np.asarray(frame), place, (WIDTH, HEIGHT))[inside]
            made.append(shifted(seen, offset))
        return noisy(made)

    return show


def flat_colours(frame: Frame) -> Frame:
    """Eight colours and no texture, as cartoons are filled."""
    smooth = cv2.pyrMeanShiftFiltering(frame, 12, 30)
    cv2.setRNGSeed(1)
    pixels = cv2.resize(smooth, (160, 90)).reshape(-1, 3).astype(np.float32)
    _, _, palette = cv2.kmeans(pixels, 8, np.empty((0,)), (3, 10, 1), 1, cv2.KMEANS_PP_CENTERS)
    away = np.square(smooth[..., None, :].astype(np.float32) - palette).sum(-1)
    return np.asarray(cv2.medianBlur(palette[away.argmin(-1)].astype(np.uint8), 7))


def strokes(frame: Frame, blur: int, below: int) -> Frame:
    """0 where a frame, blurred so far, is so many levels darker than what is about it, else 255."""
    gray = cv2.medianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), blur)
    return np.asarray(
        cv2.adaptiveThreshold(gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, below), np.uint8
    )


def outlined(frame: Frame) -> Frame:
    """Flat colours with dark outlines."""
    return np.where(strokes(frame, 7, 5)[..., None] > 0, flat_colours(frame), 0).astype(np.uint8)


def pencil(frame: Frame) -> Frame:
    gray, _ = cv2.pencilSketch(frame, sigma_s=60, sigma_r=0.07, shade_factor=0.05)
    return np.repeat(np.asarray(gray)[..., None], 3, axis=-1)


def cartoon_filter(frame: Frame) -> Frame:
    """The tutorial's: bilateral filter and edges. Texture is left."""
    smooth = cv2.bilateralFilter(frame, 9, 250, 250)
    return np.asarray(cv2.bitwise_and(smooth, smooth, mask=strokes(frame, 5, 9)), np.uint8)


def stick_figures(_: Films) -> list[Frame]:
    made = []
    for k in range(24):
        paper = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
        for x in (150, 320):
            swing = round(25 * np.sin(k / 3 + x))
            lines = [((x, 95), (x, 170)), ((x, 115), (x - 40, 140 + swing)), ((x, 115), (x + 40, 140 - swing))]
            lines += [((x, 170), (x - 25 - swing // 2, 240)), ((x, 170), (x + 25 + swing // 2, 240))]
            cv2.circle(paper, (x, 70), 24, (20, 20, 20), 4)
            for a, b in lines:
                cv2.line(paper, a, b, (20, 20, 20), 5)
        made.append(paper)
    return made


def card(_: Films) -> list[Frame]:
    colours = [(235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16), (235, 16, 235), (235, 16, 16)]
    bars = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for k, colour in enumerate(colours):
        bars[:200, k * WIDTH // 6 : (k + 1) * WIDTH // 6] = colour
    bars[200:] = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None]
    made = []
    for k in range(24):
        frame = bars.copy()
        cv2.circle(frame, (WIDTH // 2, HEIGHT // 2), 90, (255, 255, 255), 3)
        cv2.putText(frame, f"00:00:{k:02d}", (180, 145), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
        made.append(frame)
    return made


def generated(name: str) -> list[Frame]:
    """Frames of one of ffmpeg's sources."""
    with av.open(f"{name}=size={WIDTH}x{HEIGHT}:rate={FPS}:duration=1.5", format="lavfi") as source:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in source.decode(video=0)]


def facade(_: Films) -> list[Frame]:
    wall = np.full((HEIGHT, WIDTH, 3), (172, 150, 130), np.uint8)
    for y in range(20, HEIGHT, 60):
        for x in range(15, WIDTH, 50):
            cv2.rectangle(wall, (x, y), (x + 26, y + 38), (40 + x % 60, 52, 66), -1)
            cv2.rectangle(wall, (x, y), (x + 26, y + 38), (220, 216, 205), 2)
    return noisy(shifted(wall, offset) for offset in moving(2.0))


def titles(_: Films) -> list[Frame]:
    made = []
    for k in range(24):
        frame = np.full((HEIGHT, WIDTH, 3), (12, 18, 60), np.uint8)
        for row, words in enumerate(("DIRECTED BY", "A PERSON", "MUSIC", "ANOTHER ONE")):
            cv2.putText(frame, words, (120, 320 - 4 * k + 45 * row), cv2.FONT_HERSHEY_DUPLEX, 1.0, (240, 240, 240), 2)
        made.append(frame)
    return made


def zone_plate(_: Films) -> list[Frame]:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    squared = (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2
    waves = [127.5 + 127.5 * np.cos(squared / 120 - k / 2) for k in range(24)]
    return [np.repeat(wave[..., None], 3, axis=-1).astype(np.uint8) for wave in waves]


def beside(left: Sequence[Frame], right: Sequence[Frame]) -> list[Frame]:
    """A split screen: the middle half of each."""
    quarter = WIDTH // 4
    return [np.hstack([a[:, quarter:-quarter], b[:, quarter:-quarter]]) for a, b in zip(left, right, strict=False)]


def small(film: Sequence[Frame], ground: Sequence[Frame], share: float = 0.3) -> list[Frame]:
    """A film pasted small into another, with soft borders."""
    size = (round(share * WIDTH), round(share * HEIGHT))
    made = []
    for frame, behind in zip(film, ground, strict=False):
        seen = behind.copy()
        seen[20 : 20 + size[1], 20 : 20 + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        made.append(seen)
    return made


def letterbox(film: Sequence[Frame]) -> list[Frame]:
    made = []
    for frame in film:
        seen = np.zeros_like(frame)
        seen[35:-35] = cv2.resize(frame, (WIDTH, HEIGHT - 70), interpolation=cv2.INTER_AREA)
        cv2.putText(seen, "TV1", (420, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        made.append(seen)
    return made


def old_film(film: Sequence[Frame]) -> list[Frame]:
    """Gray, grainy, with a light that flickers."""
    grays = [np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1) for frame in film]
    light = np.random.default_rng(3).uniform(0.85, 1.1, len(grays))
    return noisy([np.clip(gray * level, 0, 255).astype(np.uint8) for gray, level in zip(grays, light, strict=True)], 8)


def strobe(film: Sequence[Frame]) -> list[Frame]:
    return [np.clip(frame * (2.0 if k % 4 == 0 else 1.0), 0, 255).astype(np.uint8) for k, frame in enumerate(film)]


ONE, TWO, GENERAL = Expected(subset="single_person"), Expected(subset="two_person"), Expected(subset="general")
NOT_REAL = Expected(subset="general", doubted=True)
NOTHING = Expected(subset="general", empty=True)
MONITOR, PICTURE = [(110, 50), (370, 62), (365, 215), (112, 222)], [(150, 40), (330, 40), (330, 220), (150, 220)]

KINDS: Mapping[str, Kind] = {
    "dissolve .5 s, both move": Kind(lambda f: dissolve(f["bear"], f["juggler"], 0.5), Expected(clips=2)),
    "dissolve 1.5 s, both move": Kind(lambda f: dissolve(f["woman"], f["bear"], 1.5), Expected(clips=2)),
    "dissolve .8 s, people": Kind(lambda f: dissolve(f["men"], f["woman"], 0.8), Expected(clips=2)),
    "fade through black": Kind(lambda f: fade(f["juggler"], f["woman"]), Expected(clips=2)),
    "strobe": Kind(lambda f: strobe(f["juggler"][:24]), ONE),
    "eight frames a second in sixteen": Kind(
        lambda f: [frame for frame in f["woman"][0:32:2] for _ in range(2)],
        Expected(subset="single_person", repeated=0.4),
    ),
    "letterbox and logo": Kind(lambda f: letterbox(f["men"][:24]), TWO),
    "mirrored, backwards": Kind(lambda f: [frame[:, ::-1] for frame in f["men"][23::-1]], TWO),
    "old film": Kind(lambda f: old_film(f["men"][:24]), TWO),
    "upright": Kind(lambda f: [frame[:, 150:330] for frame in f["juggler"][:24]], ONE),
    "cut off at the side": Kind(lambda f: [frame[:, 236:] for frame in f["juggler"][:24]], Expected()),
    "split screen, a person in each half": Kind(lambda f: beside(f["juggler"][:24], f["woman"]), TWO),
    "two people in a picture in picture": Kind(lambda f: small(f["men"][:24], f["bear"]), GENERAL),
    "drawn monitor": Kind(lambda f: on_a_wall(MONITOR)(f["juggler"][:24]), NOT_REAL),
    "monitor, two men": Kind(lambda f: on_a_wall(MONITOR)(f["men"][:24]), NOT_REAL),
    "picture on a wall": Kind(lambda f: on_a_wall(PICTURE)([f["woman"][10]] * 24), NOT_REAL),
    "photograph that is panned over": Kind(
        lambda f: [shifted(f["juggler"][8], offset) for offset in moving(1.5)], NOT_REAL
    ),
    "flat colours": Kind(lambda f: [flat_colours(frame) for frame in f["juggler"][:24]], NOT_REAL),
    "flat colours, outlined": Kind(lambda f: [outlined(frame) for frame in f["men"][:24]], NOT_REAL),
    "pencil": Kind(lambda f: [pencil(frame) for frame in f["woman"][:24]], NOT_REAL),
    "cartoon filter": Kind(lambda f: [cartoon_filter(frame) for frame in f["juggler"][:24]], NOT_REAL),
    "stick figures": Kind(stick_figures, NOTHING),
    "test card": Kind(card, NOTHING),
    "ffmpeg's testsrc": Kind(lambda _: generated("testsrc"), NOTHING),
    "ffmpeg's testsrc2": Kind(lambda _: generated("testsrc2"), NOTHING),
    "colour bars": Kind(lambda _: generated("smptebars"), NOTHING),
    "façade": Kind(facade, NOTHING),
    "titles": Kind(titles, NOTHING),
    "zone plate": Kind(zone_plate, NOTHING),
    "dark and noisy": Kind(lambda f: noisy([frame // 8 for frame in f["bear"][:24]], 5), NOTHING),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("films", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(KINDS), default=list(KINDS))
    a = parser.parse_args(arguments)
    (a.out / "videos").mkdir(parents=True, exist_ok=True)
    films = {name: opened(a.films / file) for name, file in FILMS.items()}
    numbers = {f"kind-{list(KINDS).index(name):02d}": name for name in a.only}
    for stem, name in numbers.items():
        (a.out / "videos" / f"{stem}.mp4").write_bytes(encode_video(list(KINDS[name].make(films)), FPS))
    execution = Execution(workers=0)
    build(BuildConfig(source="folder", videos=a.out / "videos", out=a.out / "data", execution=execution))
    found: dict[str, list[Sample]] = {name: [] for name in a.only}
    for sample in openuni.open(a.out / "data"):
        found[numbers[sample.record.video_id.removesuffix(".mp4")]].append(sample)
    print("| kind | as it should be | clips, subset, surest person, surest thing, frames repeated |\n|---|---|---|")
    held = 0
    for name, samples in found.items():
        wrong = problems(KINDS[name].expected, samples)
        held += not wrong
        print(f"| {name} | {'; '.join(wrong) or 'yes'} | {told(samples)} |")
    print(f"{held} of {len(found)} as they should be")


def opened(path: Path) -> list[Frame]:
    """The first three seconds."""
    frames = islice(read_frames(path, fps=FPS), 3 * FPS)
    return [np.asarray(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8) for frame in frames]


def problems(expected: Expected, samples: Sequence[Sample]) -> list[str]:
    wrong = [] if len(samples) == expected.clips else [f"{len(samples)} clips"]
    for sample in samples:
        subset = routing.subset(sample.record)
        if expected.subset not in (None, subset):
            wrong.append(subset)
        if expected.doubted and surest_person(sample) >= LOW:
            wrong.append("somebody is believed")
        if expected.empty and max(surest_person(sample), surest_thing(sample)) >= 0.4:
            wrong.append("something is seen")
        if sample.record.scores.get("flow_repeated", 0.0) < expected.repeated:
            wrong.append("repeats are not said")
    return wrong


def surest_person(sample: Sample) -> float:
    """The highest confidence of pose, DensePose and people's masks, 0 without any."""
    said = [sample.statuses[name].confidence or 0.0 for name in ("skeleton", "densepose")]
    return max(*said, surest_thing(sample, people=True))


def surest_thing(sample: Sample, *, people: bool = False) -> float:
    if not sample.statuses["segmentation"].present:
        return 0.0
    instances = sample.segmentation.instances
    return max((each.score or 0.0 for each in instances if (each.class_name == "person") == people), default=0.0)


def told(samples: Sequence[Sample]) -> str:
    return "; ".join(
        f"{routing.subset(sample.record)}, {surest_person(sample):.2f}, {surest_thing(sample):.2f}, "
        f"{sample.record.scores.get('flow_repeated', 0.0):.2f}"
        for sample in samples
    )


if __name__ == "__main__":
    main()
