"""Take the pictures of `docs/viewing.md`: the grid and a clip of a dataset in a real browser.

python scripts/picture_of_view.py data/demo docs/images
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import openuni
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background


def main(dataset: str, out: Path, key: str) -> None:
    """Write `view-grid.png` and `view-clip.png`."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        viewer = Viewer(Clips(openuni.open(dataset)), Flags(Path(folder) / "flags.jsonl"))
        open_in_background(viewer)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(viewer.url)
        page.wait_for_function("() => [...document.images].length && [...document.images].every(one => one.complete)")
        page.screenshot(path=out / "view-grid.png")
        page.goto(f"{viewer.url}#clip={key}&frame=20")
        page.wait_for_selector("canvas[data-frame]")
        pane = page.locator(".pane .frame").first.bounding_box()
        page.mouse.move(pane["x"] + pane["width"] * 0.55, pane["y"] + pane["height"] * 0.6)
        page.wait_for_function("() => [...document.querySelectorAll('.reading')].every(one => one.textContent)")
        page.screenshot(path=out / "view-clip.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "rendered-pair")
