"""What a generated video was asked to show.

In this order: `prompts.json` beside the videos, `prompt.txt` in the video's own folder, VBench's file name
`{prompt}-{i}.mp4`. The JSON is `{"name": "prompt"}` (names with or without folder and suffix, as VBench's own
`--prompt_file` has them), or a list of objects with a prompt (`prompt_en`, `prompt` or `caption`) and the videos as
`name`, `file`, `video` or `video_list`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from openuni.errors import OpenUniError
from unibench.formats.bounded import read_bytes, read_text

TABLE = "prompts.json"
_LARGEST = 64 << 20
_PROMPTS = ("prompt_en", "prompt", "caption")
_VIDEOS = ("video_list", "video", "file", "name")
_NUMBERED = frozenset({"clip", "frame", "gen", "generated", "img", "output", "pred", "result", "sample", "scene",
                       "seed", "take", "test", "val", "vid", "video"})  # fmt: skip
"""Words that number files rather than say what is in them."""


def prompt_of(entry: Path) -> str | None:
    """The prompt of a video, or of a folder with one or its frames; None where nothing says it. Raises OpenUniError
    where `prompts.json` is there and cannot be used."""
    table = entry.parent / TABLE
    if table.is_file() and (said := _table(table, table.stat().st_mtime_ns).get(_name(entry.name))):
        return said
    beside = entry / "prompt.txt"
    if beside.is_file() and (text := read_text(beside).strip()):
        return text
    return named_prompt(entry.stem if entry.is_file() else entry.name)


def named_prompt(stem: str) -> str | None:
    """The prompt in VBench's `{prompt}-{i}`, in any language, also of one word; None for names that are numbers or ids.

    Example:
        >>> named_prompt("a toilet, frozen in time-3"), named_prompt("一只猫在奔跑-0"), named_prompt("sunset-0")
        ('a toilet, frozen in time', '一只猫在奔跑', 'sunset')
        >>> named_prompt("clip-0"), named_prompt("000012-davis-swan-1"), named_prompt("swan")
        (None, None, None)
    """
    named = re.fullmatch(r"(.+)-\d+", stem)
    if named is None:
        return None
    text = named.group(1).strip()
    if " " in text or any(ord(letter) > 127 and letter.isalpha() for letter in text):
        return text
    return text if re.fullmatch(r"[A-Za-z']+", text) and text.lower() not in _NUMBERED else None


@lru_cache(maxsize=8)
def _table(file: Path, changed: int) -> dict[str, str]:
    del changed  # a part of the cache's key
    try:
        pairs = list(_pairs(json.loads(read_bytes(file, _LARGEST))))
    except (ValueError, RecursionError) as error:
        raise OpenUniError(f"{file} is not a JSON table of prompts: {error}") from error
    if not pairs:
        raise OpenUniError(f'{file} names no video with a prompt; write {{"name": "prompt"}}')
    return {_name(name): prompt for name, prompt in pairs}


def _pairs(data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        yield from ((name, prompt) for name, prompt in data.items() if isinstance(prompt, str))
    for row in data if isinstance(data, list) else []:
        if isinstance(row, dict):
            prompt = next((row[key] for key in _PROMPTS if isinstance(row.get(key), str)), None)
            videos = next((row[key] for key in _VIDEOS if key in row), None)
            for video in videos if isinstance(videos, list) else [videos]:
                if prompt is not None and isinstance(video, str):
                    yield video, prompt


def _name(path: str) -> str:
    """The last part of a path without the suffix of a video."""
    last = re.split(r"[/\\]", path)[-1]
    return re.sub(r"\.(mp4|webm|gif|mov|mkv|avi)$", "", last, flags=re.IGNORECASE)
