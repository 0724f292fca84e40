"""Shots against PySceneDetect's own golden cuts, and against clips whose cuts are known by construction."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from openuni.errors import BadVideoError
from openuni.sources import shots
from openuni.sources.shots import Shot, find_shots, windows
from openuni.video import encode_video

Rgb = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 120, width: int = 400) -> Rgb:
    """A smooth random picture with a colour of its own."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 9)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return np.asarray(255 * (0.5 * noise + 0.5 * rng.random(3)), np.uint8)


@pytest.mark.parametrize(
    ("clip", "detector", "fps", "near", "dissolves"),
    [("testvideo", "Content", Fraction(30000, 1001), 1e-6, [18.335]), ("fades", "Threshold", Fraction(25), 0.021, [])],
)
def test_cuts_are_those_of_the_golden_files(
    shared_data: Path, clip: str, detector: str, fps: Fraction, near: float, dissolves: list[float]
) -> None:
    """The golden frame numbers of ContentDetector, and of ThresholdDetector for fades to half a frame.

    AdaptiveDetector's own golden cuts add one in the first clip, in a fade to black (frame 691). That clip has a
    dissolve, too, from leaves to tiles, which no detector of PySceneDetect finds.
    """
    golden = json.loads((shared_data / "cuts" / f"{clip}.mp4.{detector}Detector.default.json").read_text())["cuts"]
    shots = find_shots(shared_data / "videos" / f"psd_{clip}.mp4")
    starts = [shot.start for shot in shots]
    cuts = [start for start in starts if all(abs(start - dissolve) > 0.1 for dissolve in dissolves)]
    assert cuts == pytest.approx([0.0, *(float(n / fps) for n in golden)], abs=near)
    assert len(starts) == len(cuts) + len(dissolves)
    assert [shot.end for shot in shots[:-1]] == [shot.start for shot in shots[1:]]


def test_both_colour_changes_of_the_counter_are_cuts(shared_data: Path) -> None:
    """Frames 10 and 20 at 10 fps, as can be seen; the golden file, with shots of 15 frames at least, has 20."""
    assert find_shots(shared_data / "videos" / "psd_counter.mp4") == [Shot(0.0, 1.0), Shot(1.0, 2.0), Shot(2.0, 3.0)]


def test_a_dissolve_from_a_dark_scene_is_no_fade(shared_data: Path) -> None:
    """NASA's film of a telescope: a hall as dark as black, then a bright mirror, from 4.9 to 6.0 s; and a cut."""
    shots = find_shots(shared_data / "videos_edge" / "torchcodec_nasa_13013.mp4")
    assert [shot.start for shot in shots] == pytest.approx([0.0, 5.5, 8.01], abs=0.1)


def test_times_come_from_the_file_where_the_rate_varies(tmp_path: Path) -> None:
    """Shot one at 50 fps, shot two at 10 fps, first PTS 3 s: frame number over mean rate would be far off."""
    times = [*range(0, 1000, 20), *range(1000, 3000, 100)]
    path = tmp_path / "vfr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for k, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(scene(0 if time < 1000 else 1)[:, k : k + 160].copy(), format="rgb24")
            picture.pts, picture.time_base = 3000 + time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    shots = find_shots(path)
    assert [shot.start for shot in shots] == pytest.approx([0.0, 1.0], abs=1e-3)


def test_a_whip_pan_is_no_cut_where_a_fixed_threshold_sees_one(tmp_path: Path) -> None:
    from scenedetect import ContentDetector, detect

    rng = np.random.default_rng(0)
    wide = cv2.resize(
        255 * rng.integers(0, 2, (4, 100, 3), dtype=np.uint8), (5000, 120), interpolation=cv2.INTER_NEAREST
    )
    rest, faster = np.zeros(15), np.linspace(0, 60, 25)
    speed = np.concatenate([rest, faster, np.full(25, 60.0), faster[::-1], rest])  # pixels a frame
    at = np.cumsum(speed).astype(int)
    path = tmp_path / "pan.mp4"
    path.write_bytes(encode_video([np.asarray(wide[:, x : x + 200], np.uint8) for x in at], 25.0))
    assert len(detect(str(path), ContentDetector(min_scene_len=0.5))) > 1
    assert len(find_shots(path)) == 1


def test_cuts_closer_than_the_shortest_shot_are_merged(tmp_path: Path) -> None:
    frames = [scene(k // 5)[:, :160].copy() for k in range(50)]
    path = tmp_path / "flicker.mp4"
    path.write_bytes(encode_video(frames, 25.0))
    assert min(shot.seconds for shot in find_shots(path, 0.5)[:-1]) >= 0.5 - 1e-9


def test_windows_are_equal_and_nothing_is_left_over() -> None:
    assert windows(Shot(1.0, 12.0), 5.5) == [Shot(1.0, 6.5), Shot(6.5, 12.0)]
    assert windows(Shot(1.0, 13.0), 5.5) == [Shot(1.0, 5.0), Shot(5.0, 9.0), Shot(9.0, 13.0)]
    assert windows(Shot(0.0, 5.4), 5.0, 0.5) == [Shot(0.0, 2.7), Shot(2.7, 5.4)]
    assert windows(Shot(0.0, 5.5), 5.0, 3.0) == [Shot(0.0, 5.0), Shot(5.0, 5.5)]
    assert windows(Shot(0.0, 10.0), 5.0) == [Shot(0.0, 5.0), Shot(5.0, 10.0)]
    assert windows(Shot(0.0, 3.0), 5.0) == [Shot(0.0, 3.0)]
    assert len(windows(Shot(0.1, 0.1 + 3 * 0.1), 0.1)) == 3


def test_a_video_that_shows_no_frame_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in its times can leave a film without a single frame: it is bad, and not nothing."""
    monkeypatch.setattr(shots, "presented_frames", lambda *_, **__: iter(()))
    with pytest.raises(BadVideoError, match=r"a\.mp4: it has no frame"):
        shots.find_shots(tmp_path / "a.mp4")


def test_a_fade_through_black_is_a_cut_and_a_dark_scene_or_a_fade_at_an_end_is_none(tmp_path: Path) -> None:
    def faded(picture: Rgb, levels: npt.NDArray[np.float64]) -> list[Rgb]:
        return [(picture * level).astype(np.uint8) for level in levels]

    one, two = scene(1)[:, :160], scene(2)[:, :160]
    up = np.linspace(0, 1, 20)
    rest = np.ones(30)
    path = tmp_path / "fade.mp4"
    frames = [*faded(one, up), *faded(one, rest), *faded(one, up[::-1]), *faded(two, up), *faded(two, rest)]
    path.write_bytes(encode_video([*frames, *faded(two, up[::-1])], 25.0))
    cut = find_shots(path)[0].end
    assert [shot.start for shot in find_shots(path)] == [0.0, cut]
    assert cut == pytest.approx(70 / 25, abs=0.1)
    dark = tmp_path / "dark.mp4"
    dark.write_bytes(encode_video(faded(one // 8, np.ones(60)), 25.0))
    assert len(find_shots(dark)) == 1


@pytest.mark.parametrize(("black", "shots"), [(8, 2), (24, 3)])
def test_a_short_black_between_two_shots_is_no_shot_of_its_own(tmp_path: Path, black: int, shots: int) -> None:
    """At 16 frames a second, fades of half a second end so abruptly that both ends of the black look like cuts."""
    down = np.linspace(1, 0, 8)
    levels = np.concatenate([np.ones(20), down, np.zeros(black), down[::-1], np.ones(20)])
    pictures = [scene(1)[:, :160]] * (28 + black // 2) + [scene(2)[:, :160]] * (28 + black // 2)
    path = tmp_path / "fade.mp4"
    path.write_bytes(
        encode_video([(p * level).astype(np.uint8) for p, level in zip(pictures, levels, strict=True)], 16)
    )
    found = find_shots(path)
    assert len(found) == shots
    assert found[0].end <= (28 + black / 2) / 16 <= found[-1].start + 0.07


def test_flashes_are_no_cuts_and_hide_none(tmp_path: Path) -> None:
    """A photographer's flash, a strobe, a cut a third of a second after a flash, and a cut through white."""
    one, two = scene(1), scene(2)
    calm = [one[:, k : k + 160].copy() for k in range(60)]
    bright = [np.clip(2.0 * frame, 0, 255).astype(np.uint8) for frame in calm]
    white = np.full_like(calm[0], 250)
    flash = [*calm[:30], bright[30], bright[31], *calm[32:]]
    strobe = [bright[k] if k % 4 == 0 else calm[k] for k in range(60)]
    cut = [*calm[:30], white, *calm[31:39], *[two[:, k : k + 160].copy() for k in range(39, 70)]]
    through_white = [*calm[:30], white, *[two[:, k : k + 160].copy() for k in range(31, 61)]]
    for name, frames, starts in (
        ("flash", flash, [0.0]),
        ("strobe", strobe, [0.0]),
        ("cut", cut, [0.0, 39 / 25]),
        ("through white", through_white, [0.0, 30 / 25]),
    ):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_video(frames, 25.0))
        assert [shot.start for shot in find_shots(path)] == pytest.approx(starts, abs=0.041), name


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.6])
def test_a_dissolve_is_a_cut_in_its_middle(tmp_path: Path, seconds: float) -> None:
    """Between two moving pictures; the second pans on while it appears."""
    one, two, count = scene(1), scene(2), round(25 * seconds)
    shares = np.concatenate([np.zeros(40), np.linspace(0, 1, count), np.ones(40)])
    frames = [
        ((1 - share) * one[:, k : k + 160] + share * two[:, k : k + 160]).astype(np.uint8)
        for k, share in enumerate(shares)
    ]
    path = tmp_path / "dissolve.mp4"
    path.write_bytes(encode_video(frames, 25.0))
    first, second = find_shots(path)
    assert first.end == pytest.approx((40 + count / 2) / 25, abs=0.25)
    assert second.start == first.end


def test_a_dissolve_in_a_short_clip_is_a_cut(tmp_path: Path) -> None:
    """It is looked for over longer spans than it takes: these may reach the ends of the clip, and it does not."""
    one, two = scene(1), scene(2)
    shares = np.concatenate([np.zeros(10), np.linspace(0, 1, 14), np.ones(12)])
    frames = [((1 - s) * one[:, k : k + 160] + s * two[:, k : k + 160]).astype(np.uint8) for k, s in enumerate(shares)]
    path = tmp_path / "short.mp4"
    path.write_bytes(encode_video(frames, 16.0))
    first, second = find_shots(path)
    assert first.end == second.start == pytest.approx(17 / 16, abs=0.15)


def test_a_pan_and_light_that_changes_are_no_dissolve(tmp_path: Path) -> None:
    wide = scene(3, width=900)
    pan = [np.ascontiguousarray(wide[:, 6 * k : 6 * k + 160]) for k in range(100)]
    light = [(wide[:, :160] * level).astype(np.uint8) for level in np.linspace(0.4, 1.0, 60)]
    for name, frames in (("pan", pan), ("light", light)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_video(frames, 25.0))
        assert len(find_shots(path)) == 1
