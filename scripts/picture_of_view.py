"""Take the pictures of `docs/viewing.md` and the README's moving one: `openuni view` in a real browser; with `--report`
also that of a report in `docs/scoring.md`.

python scripts/picture_of_view.py data/demo docs/images --run runs/x --run runs/y --truth data/unibench

Runs are scored before (`unibench score`): the first is shown beside its truth, and both against each other.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from openuni_pipelines.engine.viewing.opening import open_viewer
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background

WIDE, USUAL, TABLET, LONG = (1920, 1080), (1280, 720), (820, 1180), (1040, 1390)
_READ = """() => [...document.querySelectorAll('.pane:not([data-source^="error"]) .reading')]
  .every(one => one.textContent)"""
_DRAWN = """() => { const all = [...document.querySelectorAll('.pane .frame canvas:first-child')];
  return all.length && all.every(one => one.dataset.frame) }"""


def serve(shown: list[str], folder: Path, truth: str | None = None) -> Viewer:
    viewer = open_viewer(shown, truth, flags=folder / "flags.jsonl")
    open_in_background(viewer)
    return viewer


def page_of(browser: Any, size: tuple[int, int], scheme: str = "light") -> Any:
    return browser.new_context(
        viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme
    ).new_page()


def grid(page: Any, viewer: Viewer, to: Path) -> None:
    page.goto(viewer.url)
    page.wait_for_function("() => document.images.length && [...document.images].every(one => one.complete)")
    page.wait_for_function("() => state.facets")
    page.wait_for_timeout(500)
    page.screenshot(path=to)


def clip(page: Any, viewer: Viewer, key: str, to: Path, *, arrows: bool = False, whole: bool = True) -> None:
    page.goto(f"{viewer.url}#clip={key}&frame=8")
    page.wait_for_function(_DRAWN)
    if arrows:
        page.check("#arrows")
    pane = page.locator(".pane .frame").first.bounding_box()
    page.mouse.move(pane["x"] + pane["width"] * 0.55, pane["y"] + pane["height"] * 0.6)
    page.wait_for_function(_READ)
    page.wait_for_timeout(1500)
    page.screenshot(path=to, full_page=whole)


def report(
    page: Any, file: Path, to: Path, tasks: tuple[str, ...] = ("depth", "densepose"), height: int = 1340
) -> None:
    """The beginnings of some tasks of a report, side by side."""
    page.goto(file.resolve().as_uri())
    shots = []
    for task in tasks:
        top = page.locator("h2", has_text=re.compile(f"^{task}$")).bounding_box()["y"] - 12
        area = {"x": 0, "y": top, "width": page.viewport_size["width"], "height": height}
        shot = page.screenshot(full_page=True, clip=area)
        shots.append(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR))
    cv2.imwrite(str(to), cv2.resize(np.hstack(shots), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA))


def film(page: Any, viewer: Viewer, key: str, to: Path, frames: int = 16) -> None:
    """The panes of a clip frame by frame, as a small GIF."""
    page.goto(f"{viewer.url}#clip={key}")
    page.wait_for_function("() => player.panes.length && player.panes.every(one => one.jpegs.every(jpeg => jpeg))")
    shots = []
    for frame in range(frames):
        page.evaluate("frame => player.show(frame)", frame)
        page.wait_for_function(
            "n => [...document.querySelectorAll('canvas[data-frame]')].every(one => one.dataset.frame === String(n))",
            arg=frame,
        )
        shot = cv2.imdecode(np.frombuffer(page.locator("#panes").screenshot(), np.uint8), cv2.IMREAD_COLOR)
        shots.append(cv2.resize(shot, (640, round(640 * shot.shape[0] / shot.shape[1])), interpolation=cv2.INTER_AREA))
    to.write_bytes(gif(np.stack(shots)[..., ::-1]))


def gif(frames: np.ndarray, fps: int = 8) -> bytes:
    """An endless GIF with a palette of its own."""
    graph = av.filter.Graph()
    height, width = frames.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=f"1/{fps}")
    split, palette = graph.add("split"), graph.add("palettegen", "max_colors=96")
    use, sink = graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="gif", options={"loop": "0"}) as container:
        stream: Any = container.add_stream("gif", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            graph.push(frame)
        graph.push(None)
        for number in range(len(frames)):
            made: Any = graph.pull()
            made.pts = number
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--key", default="rendered-pair")
    parser.add_argument("--run", action="append", default=[], help="A scored run, whose worst clip is shown; or two.")
    parser.add_argument("--truth", help="What the runs were scored against.")
    parser.add_argument("--report", type=Path, help="A report.html with depth and DensePose; only it is drawn then.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        out = asked.out
        if asked.report:
            report(page_of(browser, (1060, 900)), asked.report, out / "score_report.png")
            browser.close()
            return
        viewer = serve([asked.dataset], Path(folder))
        grid(page_of(browser, USUAL), viewer, out / "view-grid.png")
        clip(page_of(browser, USUAL), viewer, asked.key, out / "view-clip.png")
        clip(page_of(browser, WIDE, "dark"), viewer, asked.key, out / "view-clip-dark.png", arrows=True)
        grid(page_of(browser, TABLET), viewer, out / "view-grid-tablet.png")
        film(page_of(browser, USUAL), viewer, asked.key, out / "view.gif")
        if asked.run:
            beside = serve(asked.run[:1], Path(folder), asked.truth)
            worst = beside.catalogue.keys(beside.catalogue.find(beside.scores.begin))[0]
            clip(page_of(browser, LONG), beside, worst, out / "view-truth.png", whole=False)
        if len(asked.run) > 1:
            grid(page_of(browser, USUAL), serve(asked.run, Path(folder), asked.truth), out / "view-runs.png")
        browser.close()


if __name__ == "__main__":
    main()
