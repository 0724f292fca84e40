"""Video against closed forms (BT.709/601 by hand, np.rot90, exact times) and against plain decoding from the start."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import BadVideoError
from openuni.sample import Clip
from openuni.video import (
    Limits,
    Normalisation,
    decode_video,
    encode_video,
    normalise,
    presented_frames,
    probe,
    read_frames,
)

Rgb = npt.NDArray[np.uint8]
COLOURS = np.array(
    [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
        [0, 0, 0],
        [128, 128, 128],
        [200, 100, 50],
        [20, 220, 130],
    ],
    np.uint8,
)
PATCHES = np.repeat(np.repeat(COLOURS[None], 64, axis=0), 16, axis=1)  # 64 × 128, eight flat stripes


def numbered(count: int, height: int = 48, width: int = 64) -> list[Rgb]:
    """Frames whose grey level tells their number: 8·k."""
    return [np.full((height, width, 3), 8 * k, np.uint8) for k in range(count)]


def numbers(frames: Sequence[Rgb]) -> list[int]:
    return [round(float(f.mean()) / 8) for f in frames]


def write(
    path: Path,
    frames: Sequence[Rgb],
    pts: Sequence[int] | None = None,
    *,
    tick: Fraction = Fraction(1, 1000),
    rate: int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """A video with the given presentation times, in ticks, and near-lossless pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"crf": "4"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        prepare(stream)
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = pts[k] if pts else round(k / rate / tick)
            picture.time_base = tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def raw_yuv(rgb: Rgb, matrix: str, full: bool, bits: int) -> list[npt.NDArray[np.uint16]]:
    """Y'CbCr planes by the definition of ITU-R BT.601/709/2020, rounded to `bits`."""
    kr, kb = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    unit, top = 2 ** (bits - 8), 2**bits - 1
    planes = (
        (y * top, cb * top + 128 * unit, cr * top + 128 * unit)
        if full
        else (y * 219 * unit + 16 * unit, cb * 224 * unit + 128 * unit, cr * 224 * unit + 128 * unit)
    )
    return [np.rint(np.clip(p, 0, top)).astype(np.uint16) for p in planes]


def write_raw(path: Path, matrix: str, full: bool, bits: int) -> Path:
    """PATCHES as lossless H.264 whose samples this test computed itself, tagged accordingly."""
    y, cb, cr = raw_yuv(PATCHES, matrix, full, bits)
    kind = "<u2" if bits > 8 else "u1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width = PATCHES.shape[:2]
        stream.pix_fmt = "yuv420p10le" if bits > 8 else "yuvj420p" if full else "yuv420p"
        stream.codec_context.colorspace = {"709": 1, "601": 6, "2020": 9}[matrix]
        stream.codec_context.color_range = 2 if full else 1
        for k in range(5):
            picture = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
            for plane, values in zip(picture.planes, (y, cb[::2, ::2], cr[::2, ::2]), strict=True):
                rows = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
                rows[:, : values.shape[1]] = values
                plane.update(rows.tobytes())
            picture.pts = k
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


# ------------------------------------------------------------------------------------------------------------- time


def test_a_constant_rate_is_read_frame_for_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(25))
    assert numbers(list(read_frames(path, fps=25.0))) == list(range(25))
    assert [float(f.time) for f in presented_frames(path)] == pytest.approx([k / 25 for k in range(25)])


def test_a_lower_rate_takes_the_frame_on_screen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(25))
    assert numbers(list(read_frames(path, fps=16.0))) == [int(k / 16 * 25) for k in range(16)]


def test_matroska_milliseconds_do_not_shift_frames(tmp_path: Path) -> None:
    """30 fps in ms ticks is 0, 33, 67, 100: the frame at 2/30 s must not come too late."""
    path = write(tmp_path / "a.mkv", numbered(30), [round(k * 1000 / 30) for k in range(30)], rate=30)
    assert numbers(list(read_frames(path, fps=30.0))) == list(range(30))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_variable_rate_equals_the_definition(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(5, 300), min_size=3, max_size=25))
    first = data.draw(st.integers(0, 3000))
    times = [0, *np.cumsum(steps).tolist()]
    fps = data.draw(st.sampled_from([8.0, 16.0, 30.0]))
    start = data.draw(st.integers(0, times[-1] - 1)) / 1000
    end = start + data.draw(st.integers(100, 3000)) / 1000
    folder = tmp_path_factory.mktemp("vfr")
    path = write(folder / "v.mkv", numbered(len(times)), [first + t for t in times])
    got = numbers(list(read_frames(path, start, end, fps=fps)))
    last = times[-1] + 1000 * list(presented_frames(path))[-1].duration
    expected, k = [], 0
    while (t := 1000 * (Fraction(start) + k / Fraction(fps))) < min(1000 * Fraction(end), last) - Fraction(1, 2):
        expected.append(max(i for i, at in enumerate(times) if at <= t + Fraction(1, 2)))
        k += 1
    assert got == expected


def test_times_count_from_a_late_first_pts(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mp4", numbered(20), [5000 + 40 * k for k in range(20)])
    assert probe(path).first_pts == pytest.approx(5.0)
    assert numbers(list(read_frames(path, 0.2, 0.4, fps=25.0))) == [5, 6, 7, 8, 9]


def test_the_delayed_clip_has_its_24_frames(shared_data: Path) -> None:
    path = shared_data / "videos" / "psd_delayed_start.mp4"
    assert probe(path).first_pts == pytest.approx(1.075)
    assert len(list(read_frames(path, fps=25.0))) == 24


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("options", [{"g": "250"}, {"g": "30", "x264-params": "open-gop=1:bframes=4"}])
def test_a_late_start_gives_the_frames_that_decoding_from_zero_gives(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    frames = [np.roll(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) // 4, k, axis=1) for k in range(400)]
    path = write(tmp_path / f"a.{suffix}", frames, tick=Fraction(1, 25), options=options)
    plain = list(read_frames(path, fps=25.0))
    assert len(plain) == 400
    for start in (2.2, 4.0, 7.36, 11.999, 15.96):
        late = list(read_frames(path, start, fps=25.0))
        first = round(start * 25) if start != 11.999 else 299
        np.testing.assert_array_equal(np.stack(late), np.stack(plain[first:]), err_msg=f"{suffix} {start}")


def test_a_late_start_is_exact_on_real_clips(shared_data: Path) -> None:
    for path in (*sorted((shared_data / "videos").iterdir()), *sorted((shared_data / "videos_edge").iterdir())):
        seconds = probe(path).duration or 0
        if not 3 < seconds < 15:
            continue
        plain = [(f.time, f.rgb) for f in presented_frames(path)]
        for start in (2.3, 0.6 * seconds, seconds - 0.5):
            got = list(read_frames(path, start, start + 0.3, fps=10.0))
            for k, frame in enumerate(got):
                shown = max(i for i, (time, _) in enumerate(plain) if float(time) <= start + k / 10 + 1e-5)
                np.testing.assert_array_equal(frame, plain[shown][1], err_msg=f"{path.name} {start}")


def test_a_start_past_the_end_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(25))
    with pytest.raises(BadVideoError, match=r"starts at 9 s.*ends at 1\.000 s"):
        list(read_frames(path, 9.0, fps=16.0))


# ------------------------------------------------------------------------------------------- picture: turns and colour


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_display_matrix_is_obeyed(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = 250, 170, 90
    path = write(
        tmp_path / "a.mp4",
        [stored] * 3,
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    expected = np.rot90(stored, degrees // 90)  # counter-clockwise, as the matrix
    expected = expected[:, ::-1] if mirrored else expected
    (frame, *_) = read_frames(path, fps=25.0)
    info = probe(path)
    assert (info.height, info.width) == frame.shape[:2] == expected.shape[:2]
    assert mirrored or info.rotation == degrees
    assert np.abs(frame.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("matrix", ["601", "709", "2020"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_colour_follows_matrix_range_and_depth(tmp_path: Path, matrix: str, full: bool, bits: int) -> None:
    path = write_raw(tmp_path / "a.mp4", matrix, full, bits)
    (frame, *_) = read_frames(path, fps=10.0)
    middles = np.s_[:, 8::16]
    assert np.abs(frame[middles].astype(int) - PATCHES[middles]).max() <= 2


def test_encoded_samples_are_bt709_by_its_definition() -> None:
    data = encode_video([PATCHES] * 5, 16.0, crf=1)
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
        planes = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes]
    y, cb, cr = raw_yuv(PATCHES, "709", full=False, bits=8)
    for got, expected in zip(planes, (y, cb[::2, ::2], cr[::2, ::2]), strict=True):
        middle = got.shape[1] // 16
        assert np.abs(got[:, middle :: 2 * middle].astype(int) - expected[:, middle :: 2 * middle]).max() <= 2


def test_real_clips_agree_with_ffmpegs_own_conversion(shared_data: Path) -> None:
    """Against FFmpeg's scale filter, over blocks of 8 × 8: it sites chroma elsewhere, so edges differ."""
    for name in ("torchcodec_bt709_full_range.mp4", "torchcodec_h265_10bits.mp4", "torchcodec_nasa_13013.mp4"):
        path = shared_data / "videos_edge" / name
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            assert isinstance(stream, av.VideoStream)
            graph = av.filter.Graph()
            source = graph.add_buffer(template=stream)
            scale = graph.add("scale", "flags=bicubic+accurate_rnd+full_chroma_int:out_range=full")
            form = graph.add("format", "rgb24")
            sink = graph.add("buffersink")
            graph.link_nodes(source, scale, form, sink).configure()
            graph.push(next(container.decode(stream)))
            expected = graph.pull().to_ndarray().astype(int)
        frame = next(read_frames(path, fps=25.0)).astype(int)
        height, width = (side // 8 * 8 for side in frame.shape[:2])
        error = np.abs((frame - expected)[:height, :width].reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3)))
        assert np.median(error) < 0.5, name


# ---------------------------------------------------------------------------------------------------- encode, decode


@pytest.mark.parametrize("shape", [(48, 64), (47, 33)])
def test_lossless_round_trips_every_bit(shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, *shape, 3), dtype=np.uint8)
    back, fps = decode_video(encode_video(frames, 29.97002997, lossless=True))
    np.testing.assert_array_equal(back, frames)
    assert fps == pytest.approx(30000 / 1001)


def test_lossy_keeps_flat_colours_and_count() -> None:
    back, fps = decode_video(encode_video([PATCHES] * 40, 16.0))
    assert back.shape == (40, 64, 128, 3)
    assert fps == 16.0
    assert np.abs(back[:, :, 8::16].astype(int) - PATCHES[:, 8::16]).max() <= 2


def test_the_index_comes_first_and_no_second_is_without_a_key_frame() -> None:
    data = encode_video(np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8), 16.0)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        keys = [k for k, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert max(np.diff([*keys, 60])) <= 16


def test_odd_sides_no_frames_and_mixed_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="even sides"):
        encode_video([np.zeros((47, 64, 3), np.uint8)], 16.0)
    with pytest.raises(ValueError, match="no frames"):
        encode_video([], 16.0)
    with pytest.raises(ValueError, match="frame 1 is"):
        encode_video([np.zeros((48, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)], 16.0)


# -------------------------------------------------------------------------------------------------------- normalise


DIGESTS = """
import hashlib, sys
from openuni.sample import Clip
from openuni.video import decode_video, encode_video, normalise
for path in sys.argv[1:]:
    video = normalise(Clip("k", path, 0.2, 1.5))
    exact = encode_video(decode_video(video.mp4)[0], video.fps, lossless=True)
    print(hashlib.sha256(video.mp4).hexdigest(), hashlib.sha256(exact).hexdigest())
"""


def digests_in_another_process(paths: Sequence[Path], memory: int) -> list[str]:
    """SHA-256 of the normalised clips, made where glibc fills fresh memory with the byte `memory`.

    x264 reads memory it has not written under its default settings: equal input gave 5 outputs for 5 such bytes.
    """
    environment = {**os.environ, "MALLOC_PERTURB_": str(memory)}
    command = [sys.executable, "-c", DIGESTS, *map(str, paths)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_same_file_gives_the_same_bytes_in_every_process_and_memory(tmp_path: Path) -> None:
    """With a fine moving texture, on which the default settings fail this."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (400, 700, 3), dtype=np.uint8), (0, 0), 1.5)
    frames = [np.ascontiguousarray(texture[k : k + 240, 3 * k : 3 * k + 426]) for k in range(40)]
    path = write(tmp_path / "a.mp4", [np.asarray(f, np.uint8) for f in frames])
    results = [digests_in_another_process([path], memory) for memory in (1, 85, 170, 255)]
    assert all(result == results[0] for result in results)
    here = normalise(Clip("k", str(path), 0.2, 1.5)).mp4
    assert results[0][0].split()[0] == hashlib.sha256(here).hexdigest()


@pytest.mark.slow
def test_real_files_give_the_same_bytes_in_every_process_and_memory(shared_data: Path) -> None:
    paths = [p for folder in ("videos", "videos_edge") for p in sorted((shared_data / folder).iterdir())]
    results = [digests_in_another_process(paths, memory) for memory in (1, 85, 255)]
    assert all(result == results[0] for result in results)


def test_a_normalised_clip_is_cut_cropped_sampled_and_shrunk(tmp_path: Path) -> None:
    frames = [np.tile(np.repeat(PATCHES[:1], 200, axis=0), (1, 2, 1)) for _ in range(50)]  # 200 × 256
    path = write(tmp_path / "a.mp4", frames)
    video = normalise(Clip("k", str(path), 0.5, 1.5, crop=(128, 40, 256, 168)), Normalisation(short_side=64))
    assert (video.frames, video.height, video.width, video.fps) == (16, 64, 64, 16.0)
    decoded, fps = decode_video(video.mp4)
    assert (decoded.shape, fps) == ((16, 64, 64, 3), 16.0)
    assert np.abs(decoded[:, :, 4::8].astype(int) - PATCHES[0, 8::16]).max() <= 6


def test_a_clip_is_never_enlarged_and_its_sides_are_even(tmp_path: Path) -> None:
    small = decode_size(write(tmp_path / "a.mp4", numbered(20, 50, 78)))
    assert small == (50, 78)
    path = tmp_path / "odd.mp4"
    path.write_bytes(encode_video(numbered(20, 51, 79), 25.0, lossless=True))
    assert decode_size(path) == (50, 78)


def decode_size(path: Path) -> tuple[int, int]:
    video = normalise(Clip("k", str(path)))
    return video.height, video.width


def test_pixels_are_made_square_by_shrinking(tmp_path: Path) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.sample_aspect_ratio = Fraction(4, 3)

    path = write(tmp_path / "dv.mp4", numbered(20, 120, 160), prepare=wide)
    assert probe(path).pixel_aspect == pytest.approx(4 / 3)
    assert decode_size(path) == (90, 160)


def test_at_most_max_frames_are_stored_and_too_few_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(30) * 8)
    assert normalise(Clip("k", str(path))).frames == 81
    with pytest.raises(BadVideoError, match=r"a\.mp4.*4 frames at 16 fps; 8 are needed"):
        normalise(Clip("k", str(path), 0, 0.25))
    with pytest.raises(BadVideoError, match="0 frames at 16 fps; 8 are needed"):
        normalise(Clip("k", str(path), 1, 1.00001))


@pytest.mark.parametrize(("rate", "start", "first"), [(25, 0.0, 0), (25, 0.3, 7), (2, 0.0, 0), (60, 0.1, 6)])
def test_at_its_own_rate_a_video_gives_every_frame_once(tmp_path: Path, rate: int, start: float, first: int) -> None:
    path = write(tmp_path / "a.mkv", numbered(30), rate=rate)
    video = normalise(Clip("k", str(path), start), Normalisation(None))
    assert (video.frames, video.fps, video.repeated_frames) == (30 - first, rate, 0.0)
    decoded, fps = decode_video(video.mp4)
    assert (numbers(decoded), fps) == (list(range(first, 30)), rate)


def test_an_uneven_clock_gives_every_frame_once_too(tmp_path: Path) -> None:
    """As telephones write it: 30 frames a second, each up to 13 ms early or late."""
    uneven = np.random.default_rng(0).integers(-13, 14, 30)
    uneven[0] = 0
    times = [round(k * 1000 / 30) + int(off) for k, off in enumerate(uneven)]
    path = write(tmp_path / "a.mkv", numbered(30), times, rate=30)
    video = normalise(Clip("k", str(path)), Normalisation(None))
    assert numbers(decode_video(video.mp4)[0]) == list(range(30))
    sampled = numbers(list(read_frames(path, fps=30)))
    assert sampled != list(range(30))  # what sampling at the frames' beginnings would make of it


def test_a_gap_is_filled_at_the_rate_of_the_rest(tmp_path: Path) -> None:
    """As a recorder that lost frames writes it: by its average of 22.9 fps, frames beside the gap would be lost too."""
    there = [*range(12), *range(16, 30)]
    frames = numbered(30)
    path = write(tmp_path / "a.mp4", [frames[k] for k in there], there, rate=25, tick=Fraction(1, 25))
    assert probe(path).fps < 23
    video = normalise(Clip("k", str(path)), Normalisation(None))
    assert numbers(decode_video(video.mp4)[0]) == [*range(12), *[11] * 4, *range(16, 30)]
    assert (video.fps, video.repeated_frames) == (25.0, 4 / 30)


def test_a_rate_that_no_film_has_is_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(20), list(range(20)), rate=1000)
    with pytest.raises(BadVideoError, match=r"a\.mkv: it gives its rate as 1000 frames a second; name one with --fps"):
        normalise(Clip("k", str(path)), Normalisation(None))


def test_frames_are_streamed_not_gathered(tmp_path: Path) -> None:
    """The peak of NumPy's memory stays below six frames, whether eight or eighty are stored."""
    path = write(tmp_path / "a.mp4", numbered(30, 360, 640) * 5)
    for count in (8, 80):
        tracemalloc.start()
        assert normalise(Clip("k", str(path)), Normalisation(max_frames=count)).frames == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * 360 * 640 * 3


def test_a_crop_outside_the_frame_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(20))
    with pytest.raises(BadVideoError, match="leaves the frame of 64×48"):
        normalise(Clip("k", str(path), crop=(0, 0, 65, 48)))


# ---------------------------------------------------------------------------------------------- streams and metadata


def test_cover_pictures_are_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(av.VideoFrame(320, 240, "yuvj420p")))
        container.mux(cover.encode(None))
        for k, frame in enumerate(numbered(25)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = k
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert (probe(path).width, probe(path).height) == (64, 48)
    assert len(list(read_frames(path, fps=25.0))) == 25


def test_of_two_video_streams_ffmpegs_best_is_read(shared_data: Path) -> None:
    info = probe(shared_data / "videos_edge" / "torchcodec_nasa_13013.mp4")
    assert (info.width, info.height, info.frames) == (480, 270, 390)


@pytest.mark.parametrize(
    ("name", "codec", "size", "count"),
    [
        ("torchcodec_av1_video.mkv", "av1", (640, 360), 125),
        ("torchcodec_h265_video.mp4", "hevc", (128, 128), 10),
        ("torchcodec_h264_10bits.mp4", "h264", (200, 200), 30),
    ],
)
def test_other_codecs_are_read(shared_data: Path, name: str, codec: str, size: tuple[int, int], count: int) -> None:
    path = shared_data / "videos_edge" / name
    info = probe(path)
    assert (info.codec, (info.width, info.height)) == (codec, size)
    assert len(list(presented_frames(path))) == count


def test_metadata_need_not_be_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(10))
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        target.metadata["title"] = "QQQQQQQQ"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    bad = tmp_path / "c.mp4"
    bad.write_bytes((tmp_path / "b.mp4").read_bytes().replace(b"QQQQQQQQ", b"\xff\xfe\xc3\x28\xa0\xa1\xe2\x28"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(bad))
    assert len(list(read_frames(bad, fps=25.0))) == 10


# ---------------------------------------------------------------------------------------------------- bad and hostile


def test_what_is_no_video_is_named_and_said(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a film\n" * 100)
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    for name, problem in {
        "absent.mp4": "no such file",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video",
        "noise.mkv": "not a video",
        "sound.mp4": r"no video stream \(found: audio\)",
    }.items():
        for call in (
            probe,
            lambda path: list(read_frames(path, fps=16.0)),
            lambda path: normalise(Clip("k", str(path))),
        ):
            with pytest.raises(BadVideoError, match=f"{name}: .*{problem}"):
                call(tmp_path / name)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_an_error_wherever_it_is_cut(tmp_path: Path, suffix: str, part: float) -> None:
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(100)]
    whole = write(tmp_path / f"whole.{suffix}", frames, tick=Fraction(1, 25)).read_bytes()
    if suffix == "mp4":
        whole = encode_video(frames, 25.0)  # index first, so that a cut file still opens
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BadVideoError, match=f"cut.{suffix}: (cut short|damaged|not a video)"):
        list(read_frames(path, fps=25.0))
    with pytest.raises(BadVideoError):
        decode_video(path)
    with pytest.raises(BadVideoError):
        list(presented_frames(path))


def test_a_play_list_named_mp4_opens_no_other_file(tmp_path: Path) -> None:
    real = write(tmp_path / "real.mp4", numbered(10))
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {real}\n")
    (tmp_path / "hls.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{real.as_uri()}\n#EXT-X-ENDLIST\n"
    )
    for name in ("list.mp4", "hls.mp4"):
        with pytest.raises(BadVideoError, match="not a video"):
            probe(tmp_path / name)
    with pytest.raises(BadVideoError, match="no such file"):
        probe(f"concat:{real}")


def test_a_file_is_opened_by_any_name(tmp_path: Path) -> None:
    data = encode_video(numbered(10), 25.0)
    for name in ("-begins with a dash.mp4", "concat:a|b.mp4", "100%d.mp4", "мир\U0001f3a5.mp4", "extension.jpg"):
        (tmp_path / name).write_bytes(data)
        assert probe(tmp_path / name).frames == 10


def test_limits_are_checked_before_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(25))
    for limits, problem in (
        (Limits(side=63), "64×48 exceed the limit"),
        (Limits(pixels=64 * 48 - 1), "64×48 exceed the limit"),
        (Limits(seconds=0.5), "lasts 1 s, more than the limit"),
    ):
        with pytest.raises(BadVideoError, match=problem):
            probe(path, limits)
    with pytest.raises(BadVideoError, match="more than 9 frames"):
        list(presented_frames(path, limits=Limits(frames=9)))
    with pytest.raises(BadVideoError, match="more than 100 frames are asked"):
        list(read_frames(path, fps=1000.0, limits=Limits(frames=100)))
    with pytest.raises(BadVideoError, match="25 frames of 64×48 exceed"):
        decode_video(path, Limits(array_bytes=24 * 48 * 64 * 3))


def test_a_video_one_pixel_high_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thin.mkv"
    write(path, [np.zeros((2, 16000, 3), np.uint8)] * 10, codec="ffv1", options={})
    with pytest.raises(BadVideoError, match="a side needs 16 pixels"):
        normalise(Clip("k", str(path)))
    write(path, [np.zeros((2, 100_000, 3), np.uint8)] * 10, codec="ffv1", options={})
    with pytest.raises(BadVideoError, match="100000×2 exceed the limit"):
        probe(path)


def test_flipped_bytes_end_in_frames_or_in_a_clear_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = encode_video([rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(20)], 25.0)
    path = tmp_path / "a.mp4"
    for _ in range(150):
        broken = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, len(data) if rng.random() < 0.5 else 1200, size=3)
        broken[at] = rng.integers(0, 256, size=3)
        path.write_bytes(broken.tobytes())
        with contextlib.suppress(BadVideoError):
            assert all(frame.dtype == np.uint8 for frame in read_frames(path, fps=16.0, limits=Limits(frames=1000)))
