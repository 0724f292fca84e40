"""VBench folders as people have them: webm and gif, prompts of one word or in Chinese, prompts in a JSON."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from openuni.errors import OpenUniError
from openuni.video import encode_video
from unibench.scoring.runs import open_run

FRAMES = np.random.default_rng(3).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)


def write(path: Path, codec: str, pixels: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format=pixels)))
        container.mux(stream.encode(None))


def test_webm_and_gif_are_seen(tmp_path: Path) -> None:
    write(tmp_path / "a red ball-0.webm", "libvpx-vp9", "yuv420p")
    write(tmp_path / "a red ball-1.gif", "gif", "rgb8")
    run = open_run(tmp_path)
    assert len(run.keys("video")) == 2
    for key in run.keys("video"):
        video = run.load("video", key)
        assert (len(video.frames), video.prompt) == (4, "a red ball")


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("一只猫在奔跑-0", "一只猫在奔跑"), ("sunset-4", "sunset"), ("clip-3", None), ("000001-davis-swan-3", None)],
)
def test_prompts_without_a_space(tmp_path: Path, name: str, prompt: str | None) -> None:
    (tmp_path / f"{name}.mp4").write_bytes(encode_video(list(FRAMES), 8.0))
    run = open_run(tmp_path)
    (key,) = run.keys("video")
    assert run.load("video", key).prompt == prompt


@pytest.mark.parametrize("table", [
    {"out/0001.mp4": "a cat", "2": "x"},
    [{"prompt_en": "a cat", "dimension": ["color"], "video_list": ["out/0001.mp4"]}],
])  # fmt: skip
def test_prompts_from_a_json(tmp_path: Path, table: object) -> None:
    (tmp_path / "0001.mp4").write_bytes(encode_video(list(FRAMES), 8.0))
    (tmp_path / "prompts.json").write_text(json.dumps(table), encoding="utf-8")
    assert open_run(tmp_path).load("video", "0001").prompt == "a cat"
    (tmp_path / "prompts.json").write_text("[1]")
    with pytest.raises(OpenUniError, match="names no video"):
        open_run(tmp_path).load("video", "0001")
