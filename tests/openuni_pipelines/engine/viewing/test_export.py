"""An export works from any file server: frames, filters and values in Chromium, without a server of ours."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openuni
from openuni.errors import PlanError
from openuni.modalities.rgb import Rgb
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.publishing import publish
from openuni_pipelines.engine.viewing.server import Viewer
from openuni_pipelines.engine.viewing.sources import Stored
from tests.openuni_pipelines.engine.viewing.bars import HOSTILE, H, T, W, settled


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""


def test_an_export_needs_no_server_of_ours(dataset: Path, tmp_path: Path, page: Any) -> None:
    viewer = Viewer(Clips(Stored(openuni.open(dataset))), Flags(tmp_path / "flags.jsonl"))
    out = tmp_path / "out"
    assert publish(viewer, out) == 4
    stored = np.load(io.BytesIO(gzip.decompress((out / "data/clip-1/0.depth.5.values").read_bytes())))
    assert np.array_equal(stored[..., 0], openuni.open(dataset)["clip-1"].depth.values[5], equal_nan=True)
    handler = functools.partial(_Quiet, directory=str(out))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        page.goto(url)
        page.wait_for_selector(".card img")
        assert HOSTILE in page.locator(".card .what").first.text_content()
        page.fill("#words", "BARS 25")
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")
        page.locator(".card").first.click()
        settled(page, 0)
        page.goto(f"{url}#clip=clip-1&frame=5")
        page.reload()
        settled(page, 5)
        frame = page.locator(".pane .frame").nth(1).bounding_box()
        page.mouse.move(frame["x"] + frame["width"] * 2.5 / 8, frame["y"] + frame["height"] / 2)
        page.wait_for_function("() => document.querySelectorAll('.reading')[1].textContent.includes('depth 2 m')")
        page.wait_for_function("() => document.querySelectorAll('.reading')[2].textContent.includes('u 3 px')")
        page.wait_for_function("() => document.querySelectorAll('.reading')[3].textContent.includes('light bar')")
        person, joint, *_ = viewer.clips.readings("clip-1", "skeleton", 5, H // 2, W * 5 // 16)
        nearest = f"person {person.value}  joint {joint.value}  at "
        page.wait_for_function(f"() => document.querySelectorAll('.reading')[4].textContent.includes('{nearest}')")
        page.evaluate("player.show(39)")
        settled(page, 39)
        server.shutdown()
    assert "taken" not in page.title()


def test_a_clip_without_people_is_exported(tmp_path: Path) -> None:
    nobody = Skeleton(np.zeros((T, 0, 17, 3), np.float32), np.zeros((T, 0, 4), np.float32), np.zeros(0, np.int32), H, W)
    rgb = Rgb(np.zeros((T, H, W, 3), np.uint8), 12.0)
    columns = {"rgb": "rgb-1", "skeleton": "skeleton-1"}
    root = tmp_path / "data"
    made = {"rgb": Annotation(rgb), "skeleton": Annotation(nobody)}
    writer.save_sample(root, 0, Record("empty", T, H, W, 12.0), made, columns, "run")
    writer.commit_shard(root, 0, ["empty"], columns, "run")
    writer.write_manifest(root, {}, columns, 1, 1, "run")
    viewer = Viewer(Clips(Stored(openuni.open(root))), Flags(tmp_path / "flags.jsonl"))
    assert publish(viewer, tmp_path / "out") == 1
    people = json.loads((tmp_path / "out/data/empty/clip.json").read_bytes())["people"][""]
    assert (people["tracks"], people["joints"], people["boxes"]) == ([], [[]] * T, [[]] * T)


def test_an_export_too_large_says_how_to_choose(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openuni_pipelines.engine.viewing.publishing.MOST_CLIPS", 3)
    viewer = Viewer(Clips(Stored(openuni.open(dataset))), Flags(tmp_path / "flags.jsonl"))
    with pytest.raises(PlanError, match=r"has 4 clips.* at most 3: choose some with `openuni select"):
        publish(viewer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_goes_into_no_folder_of_others(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    viewer = Viewer(Clips(Stored(openuni.open(dataset))), Flags(tmp_path / "flags.jsonl"))
    with pytest.raises(PlanError, match=r"holds mine\.txt"):
        publish(viewer, tmp_path)
    assert not (tmp_path / "index.html").exists()
