"""Render the two clips of whole people that the `demo` source ships, beside its real clips.

    python scripts/render_demo_people.py        # writes openuni/sources/rendered/*.mp4

Registry packages carry hardly any video of a whole person. These two are rendered, and called so wherever they show.
"""

from __future__ import annotations

from pathlib import Path

from openuni.video import encode_video
from unibench.rendering.render import render_scene
from unibench.scenes.families import Spec

FOLDER = Path(__file__).parents[1] / "openuni" / "sources" / "rendered"
CLIPS = {"pair": 12, "play": 13}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for family, seed in CLIPS.items():
        scene = render_scene(Spec(family, seed, frames=32, height=360, width=360))
        (FOLDER / f"{family}.mp4").write_bytes(encode_video(scene.rgb, 16.0, crf=20))


if __name__ == "__main__":
    main()
