"""Each frame once, in order, at its time: also where the container has no usable clock."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from openuni.errors import BadVideoError
from openuni.sample import Clip
from openuni.video import decode_video, normalise, presented_frames, probe, read_frames
from tests.openuni.video.films import film, joined, number_of, packed


def check(path: Path, clock: str, count: int, rate: int = 16) -> None:
    """Frames 0, 1, …, at k / rate, and the same ones where reading begins late."""
    frames = list(presented_frames(path))
    assert probe(path).clock == clock
    assert [number_of(frame.rgb) for frame in frames] == list(range(count))
    assert [float(frame.time) for frame in frames] == pytest.approx([k / rate for k in range(count)], abs=1e-3)
    late = read_frames(path, (count - 5) / rate, fps=float(rate))
    assert [number_of(frame) for frame in late] == list(range(count - 5, count))


@pytest.mark.parametrize(("codec", "bf"), [("libx264", "3"), ("mpeg4", "2")])
def test_frames_of_an_avi_are_counted_where_there_are_b_frames(tmp_path: Path, codec: str, bf: str) -> None:
    check(film(tmp_path / "a.avi", codec=codec, options={"bf": bf}), "counted", 48)


def test_packed_b_frames_are_counted(tmp_path: Path) -> None:
    check(packed(tmp_path / "a.avi"), "counted", 49)


def test_an_avi_without_b_frames_keeps_its_own_times(tmp_path: Path) -> None:
    check(film(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p"), "pts", 48)


def test_an_mp4_whose_times_were_invented_from_the_order_of_decoding_is_counted(tmp_path: Path) -> None:
    plain = film(tmp_path / "plain.mp4", options={"bf": "3"})
    path = tmp_path / "copied.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.dts += 2 * 1024  # from zero on
                packet.pts, packet.stream = packet.dts, stream
                output.mux(packet)
    check(path, "counted", 48)


@pytest.mark.parametrize("start", [0.0, 1.0, 3600.0])
def test_the_clock_is_carried_on_over_a_join(tmp_path: Path, start: float) -> None:
    """The second recording begins at `start`: earlier than the first one ends, or an hour later."""
    parts = (
        film(tmp_path / "a.ts", 24, container="mpegts"),
        film(tmp_path / "b.ts", 24, first=24, start=start, container="mpegts"),
        film(tmp_path / "c.ts", 24, first=48, container="mpegts"),
    )
    check(joined(tmp_path / "all.ts", *parts), "joined", 72)


def test_joined_program_streams(tmp_path: Path) -> None:
    parts = [
        film(tmp_path / f"{k}.mpg", 25, first=25 * k, rate=25, codec="mpeg2video", options={"bf": "2"})
        for k in range(2)
    ]
    check(joined(tmp_path / "all.mpg", *parts), "joined", 50, rate=25)


def test_gaps_between_time_stamps_are_filled(tmp_path: Path) -> None:
    """H.264 in a program stream: a pack has one time stamp, and many pictures."""
    path = film(tmp_path / "a.vob", 50, rate=25, container="vob", options={"bf": "2", "b-adapt": "0"})
    with av.open(str(path)) as container:
        assert sum(packet.pts is None for packet in container.demux(video=0)) > 30
    check(path, "pts", 50, rate=25)


def test_an_ordinary_transport_stream_keeps_its_own_times(tmp_path: Path) -> None:
    check(film(tmp_path / "a.ts", start=9.0, container="mpegts", options={"bf": "3"}), "pts", 48)


def test_a_clock_that_steps_back_where_it_may_not_is_refused_by_name(tmp_path: Path) -> None:
    """Matroska, whose last cluster claims to begin at zero."""
    path = film(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p", muxer={"cluster_time_limit": "1000"})
    data = path.read_bytes()
    at = data.rindex(b"\xe7\x82", 0, data.rindex(b"\xa3"))  # the time stamp of a cluster, in two bytes
    path.write_bytes(data[: at + 2] + b"\0\0" + data[at + 4 :])
    with pytest.raises(BadVideoError, match=r"a\.mkv: its clock steps back from .* s to 0\.00 s; split the file there"):
        list(presented_frames(path))


def test_what_a_file_was_is_not_remembered_after_it_changed(tmp_path: Path) -> None:
    one, two = (film(tmp_path / f"{k}.ts", 24, first=24 * k, container="mpegts") for k in range(2))
    path = joined(tmp_path / "all.ts", one)
    assert probe(path).clock == "pts"
    joined(path, one, two)
    os.utime(path)
    assert probe(path).clock == "joined"


def test_a_stored_clip_tells_where_its_times_come_from_and_how_much_of_it_repeats(tmp_path: Path) -> None:
    fast = normalise(Clip("k", str(film(tmp_path / "a.avi", options={"bf": "3"}))))
    assert (fast.origin.clock, fast.origin.deinterlaced, fast.origin.transfer) == ("counted", False, "sdr")
    assert fast.repeated_frames == 0
    slow = normalise(Clip("k", str(film(tmp_path / "b.mp4", 6, rate=2))))
    assert slow.frames == 48
    assert slow.repeated_frames == pytest.approx(42 / 48)
    assert [number_of(frame) for frame in decode_video(slow.mp4)[0][::8]] == list(range(6))
    assert slow.origin.clock == "pts"
