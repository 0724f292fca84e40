"""Video in and out: frames by presentation time, the normalised clip, and one deterministic encode.

`limits` what a video may ask for · `container` opening one · `member` one in a tar · `clock` when a frame is on
screen · `deinterlace` and `colour` what it looks like · `decode` frames out · `normalise` the stored clip · `encode`
frames in
"""

from openuni.video.clock import ClockKind
from openuni.video.colour import Transfer
from openuni.video.decode import (
    Frame,
    PresentedFrame,
    SampledFrame,
    VideoInfo,
    decode_video,
    decode_video_part,
    presented_frames,
    probe,
    read_frames,
    sample_frames,
)
from openuni.video.encode import encode_video
from openuni.video.limits import SUFFIXES, Limits
from openuni.video.normalise import FASTEST, Normalisation, NormalisedVideo, Origin, normalise

__all__ = [
    "FASTEST",
    "SUFFIXES",
    "ClockKind",
    "Frame",
    "Limits",
    "Normalisation",
    "NormalisedVideo",
    "Origin",
    "PresentedFrame",
    "SampledFrame",
    "Transfer",
    "VideoInfo",
    "decode_video",
    "decode_video_part",
    "encode_video",
    "normalise",
    "presented_frames",
    "probe",
    "read_frames",
    "sample_frames",
]
