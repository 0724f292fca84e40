"""One dataset for all tests of the viewer, and a browser a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from openuni.sample import Record
from openuni.shards import writer
from tests.openuni_pipelines.engine.viewing.bars import COLUMNS, HOSTILE, RATES, H, T, W, burnt


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips at four rates; the first has a hostile caption, the last lacks its depth."""
    root = tmp_path_factory.mktemp("view") / "data"
    keys = [f"clip-{number}" for number in range(len(RATES))]
    for key, fps in zip(keys, RATES, strict=True):
        caption = HOSTILE if key == keys[0] else f"bars at {fps:g} frames a second"
        record = Record(
            key, T, H, W, fps, caption=caption, source="toy", source_id=key, video_id=key, scores={"sharp": fps}
        )
        annotations: dict[str, Any] = burnt(fps)
        if key == keys[-1]:
            annotations["depth"] = "too dark"
        writer.save_sample(root, 0, record, annotations, COLUMNS, "run")
    writer.commit_shard(root, 0, keys, COLUMNS, "run")
    writer.write_manifest(root, {"source": "toy"}, COLUMNS, len(keys), 1, "run")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium: the system's, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine; install Debian's `chromium`")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may ask nobody but the loopback interface, and whose errors fail the test."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    opened.set_default_timeout(120_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: errors.append(request.url) if outside(request.url) else None)
    yield opened
    opened.context.close()
    assert not errors


def outside(url: str) -> bool:
    return urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).hostname != "127.0.0.1"
