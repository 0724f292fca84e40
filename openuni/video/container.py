"""A video file opened by FFmpeg's libraries (PyAV), and nothing else: no play list, no network, no cover picture."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition

from openuni.errors import BadVideoError
from openuni.video import member
from openuni.video.limits import Limits

Source = Path | bytes
T = TypeVar("T")
"""A video file, a member of a tar (`member.find`), or one in memory."""

# A play list or an image pattern named .mp4 would make FFmpeg open other files: only real containers are let in.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,ivf,mxf,nut,gif"


def bad(source: Source, problem: str) -> BadVideoError:
    """The error to raise: the file and what is wrong with it."""
    return BadVideoError(f"{source if isinstance(source, Path) else 'video in memory'}: {problem}")


def reason(error: Exception) -> str:
    """FFmpeg's own words without its error number."""
    return str(getattr(error, "strerror", None) or error)


def open_stream(source: Source, limits: Limits) -> tuple[InputContainer, av.VideoStream]:
    """The opened file and its video stream. Raises BadVideoError where there is none, or its frames are too large."""
    file: Any
    if isinstance(source, Path) and (inside := member.find(source)):
        if not inside.is_there():
            raise bad(source, "the tar has changed since it was planned; plan a new dataset from it")
        file = member.MemberFile(inside)
    elif isinstance(source, Path):
        if not source.is_file():
            raise bad(source, "there is no such file")
        if source.stat().st_size == 0:
            raise bad(source, "the file is empty; fetch or copy it again")
        # `file:` keeps FFmpeg from taking a name like `concat:…` for a protocol.
        file = f"file:{source.absolute()}"
    else:
        file = io.BytesIO(source)
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(file, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise bad(source, f"not a video that can be read, or cut short ({reason(error)})") from error
    try:
        return container, _choose_stream(container, source, limits)
    except BadVideoError:
        container.close()
        raise


def _choose_stream(container: InputContainer, source: Source, limits: Limits) -> av.VideoStream:
    """FFmpeg's best video stream, cover pictures left out; its size checked before a decoder is set up."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise bad(source, f"it has no video stream (found: {others})")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    if stream.codec_context is None:
        raise bad(source, "this FFmpeg has no decoder for its codec")
    check_size(source, limits, stream.codec_context.width, stream.codec_context.height)
    if stream.time_base is None:
        raise bad(source, "its video stream has no time base")
    # Jobs run side by side, so a decoder takes one thread. FFmpeg itself refuses frames that grow on the way.
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    return stream


def check_size(source: Source, limits: Limits, width: int, height: int) -> None:
    """Raise BadVideoError where frames exceed `limits`."""
    if max(width, height) > limits.side or width * height > limits.pixels:
        raise bad(
            source,
            f"its frames of {width}×{height} exceed the limit of {limits.side} a side, {limits.pixels} pixels",
        )


def remembered(examine: Callable[[Source, Limits], T]) -> Callable[[Source, Limits], T]:
    """`examine`, which remembers its answers for files as they were at their size and time: clips share a video."""

    @functools.lru_cache(maxsize=8)
    def known(path: Path, limits: Limits, size: int, modified: int) -> T:
        return examine(path, limits)

    @functools.wraps(examine)
    def asked(source: Source, limits: Limits) -> T:
        if isinstance(source, bytes):
            return examine(source, limits)
        inside = member.find(source)
        status = (inside.tar if inside else source).stat()
        return known(source, limits, status.st_size, status.st_mtime_ns)

    return asked
