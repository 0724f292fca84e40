"""How soon `openuni view` shows something: first paint, a clip's first frame in all columns, a clip seen before.

    python benchmarks/viewing.py --rows 1000000 --frames 81

A dataset of one real shard (noise and motion at 480×832, six columns) is written below the system's temporary folder;
the large indices are that shard's index many times over, in memory or (`--folder`) in files. Times are those of a
headless Chromium, from the address to the picture; "loaded" says how busy the machine was, and processor seconds of
the server are given beside, which that blurs less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fsspec.implementations.memory import MemoryFileSystem
from playwright.sync_api import sync_playwright

import openuni
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation, Record
from openuni.shards import catalog, layout, writer
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni_pipelines.engine.viewing.catalogue import Query
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import Stored

COLUMNS = {name: f"{name}-1" for name in ("rgb", "depth", "flow", "segmentation", "densepose", "skeleton")}
SHARD = 128
HEIGHT, WIDTH = 480, 832


def annotations(frames: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Annotation[Any]]:
    """A blurred texture that drifts, and maps of it: as hard to code as real ones."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (height, width + 3 * frames, 3)).astype(np.float32), (0, 0), 4)
    texture = np.clip((texture - texture.mean()) * 6 + 128, 0, 255).astype(np.uint8)
    rgb = np.stack([texture[:, 3 * t : 3 * t + width] for t in range(frames)])
    near = rgb[..., 0].astype(np.float32) / 255
    motion = np.stack([near[:-1] * 6 - 3, near[:-1] * 2], -1)
    ids = ((rgb[..., 1] > 150) + 2 * (rgb[..., 2] > 150)).astype(np.int32)
    body = (rgb[..., 1:2] > 150) * np.concatenate([rgb[..., :1] // 12 + 1, rgb[..., 1:], rgb[..., :1] * 0 + 1], -1)
    joints = rng.uniform(100, 400, (frames, 2, 17, 3)).astype(np.float32)
    joints[..., 2] = 1
    boxes = np.tile(np.float32([90, 90, 410, 410]), (frames, 2, 1))
    table = tuple(Instance(number, f"thing {number}") for number in (1, 2, 3))
    return {
        "rgb": Annotation(Rgb(rgb, 16.0)),
        "depth": Annotation(Depth(1 / (near + 0.1), "relative"), 0.5),
        "flow": Annotation(Flow(motion.astype(np.float32), near[:-1] > 0.8), 0.5),
        "segmentation": Annotation(Segmentation(ids, table)),
        "densepose": Annotation(DensePose(body.astype(np.uint8))),
        "skeleton": Annotation(Skeleton(joints, boxes, np.arange(2, dtype=np.int32), height, width)),
    }


def write_shard(root: Path, frames: int) -> None:
    """One committed shard: a clip of `frames` frames, and more of a few."""
    keys = [f"clip-{number:03d}" for number in range(SHARD)]
    small = annotations(2, HEIGHT // 2, WIDTH // 2)
    for key in keys:
        made = annotations(frames) if key == keys[0] else small
        size = made["rgb"].value.frames.shape[:3]
        record = Record(key, *size, 16.0, caption=f"a texture drifts: {key}")
        writer.save_sample(root, 0, record, made, COLUMNS, "run")
    writer.commit_shard(root, 0, keys, COLUMNS, "run")
    writer.write_manifest(root, {}, COLUMNS, SHARD, 1, "run")


def put_many(root: Path, shards: int, put: Callable[[str, bytes | Path], None], *, commits: bool) -> None:
    """The index of the shard as that of `shards`, with its catalog last; `commits`: each record as a file too."""
    manifest = layout.dump_checked(Manifest(layout.laid_out({}, shards), COLUMNS, shards * SHARD, shards, ""))
    one = {column: layout.parse_json(CommitRecord, (root / layout.commit_name(0, column)).read_bytes(), "")
           for column in COLUMNS}  # fmt: skip
    records = []
    put(layout.MANIFEST, manifest)
    for shard in range(shards):
        first, last = f"clip-{shard:06d}-000", f"clip-{shard:06d}-999"
        for column in sorted(COLUMNS):
            records.append(replace(one[column], shard=shard, run="", first_key=first, last_key=last))
            put(layout.index_name(shard, column), root / layout.index_name(0, column))
            if commits:
                put(layout.commit_name(shard, column), layout.dump_checked(records[-1]))
    table = catalog.encode(records)
    head = catalog.Head(layout.digest(manifest), FileRecord(len(table), layout.digest(table)))
    put(catalog.TABLE, table)
    put(catalog.HEAD, layout.dump_checked(head))


def in_memory(root: Path, name: str, shards: int) -> str:
    """Its URL."""
    files, kept = MemoryFileSystem(), {path: path.read_bytes() for path in root.rglob("*.parquet")}
    put_many(
        root,
        shards,
        lambda file, data: files.pipe_file(f"/{name}/{file}", kept[data] if isinstance(data, Path) else data),
        commits=False,
    )
    return f"memory://{name}"


def in_files(root: Path, folder: Path, shards: int) -> str:
    """Its folder; kept for the next time. All index files are links to one."""

    def put(name: str, data: bytes | Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Path):
            os.link(data, path)
        else:
            path.write_bytes(data)

    if not (folder / catalog.HEAD).exists():
        shutil.rmtree(folder, ignore_errors=True)
        put_many(root, shards, put, commits=True)
    return str(folder)


def serve(url: str) -> Viewer:
    viewer = Viewer(Clips(Stored(openuni.open(url))), Flags(Path(tempfile.mkdtemp()) / "flags.jsonl"))
    open_in_background(viewer)
    return viewer


def first_paint(browser: Any, url: str) -> dict[str, float]:
    """Seconds from opening the dataset to cards on the screen, then to all filters."""
    began, cpu = time.perf_counter(), time.process_time()
    viewer = serve(url)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(viewer.url)
    page.wait_for_selector(".card .key")
    painted, painted_cpu = time.perf_counter() - began, time.process_time() - cpu
    page.wait_for_function("() => state.facets && histogram", timeout=1_800_000)
    filters, filters_cpu = time.perf_counter() - began, time.process_time() - cpu
    gaps = page.evaluate(SCROLL)
    asked = {name: query_cpu(viewer, query) for name, query in QUERIES.items()}
    page.close()
    viewer.close()
    times = {"first_paint_s": painted, "first_paint_server_cpu_s": painted_cpu, "filters_s": filters}
    times |= {"filters_server_cpu_s": filters_cpu} | asked
    return {name: round(value, 2) for name, value in times.items()} | gaps


QUERIES = {
    "words": Query(words="texture drifts: clip-12"),
    "sorted": Query(sort="depth.confidence", order="descending"),
    "range": Query(ranges={"frames": (2, 3)}, absent=None),
}


def query_cpu(viewer: Viewer, query: Query) -> float:
    """Processor seconds of a filter and its first cards."""
    before = time.process_time()
    viewer.catalogue.cards(viewer.catalogue.find(query)[:60], query.sort)
    return time.process_time() - before


SCROLL = """async () => {
  const grid = document.getElementById('grid'), gaps = [];
  let last = performance.now();
  for (let step = 0; step < 120; step += 1) {
    grid.scrollTop += 400;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  gaps.sort((a, b) => a - b);
  return { scroll_frame_median_ms: Math.round(gaps[60]), scroll_frame_p95_ms: Math.round(gaps[114]) };
}"""
DRAWN = """() => { const all = [...document.querySelectorAll('.pane .frame canvas:first-child')];
  return all.length === 6 && all.every(pane => pane.dataset.frame) }"""
WHOLE = "() => player.panes.length === 6 && player.panes.every(pane => pane.jpegs.every(jpeg => jpeg))"


def open_clip(browser: Any, root: Path) -> dict[str, float]:
    """Seconds until all six columns show the frame asked for, until all frames are there, and both once more; the
    server's processor seconds, which a busy machine blurs less, and the requests for frames."""
    viewer = serve(str(root))
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(viewer.url)
    page.wait_for_selector(".card .key")
    times: dict[str, float] = {}
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request) if "/api/frame" in request.url else None)
    for name in ("cold", "seen"):
        began, cpu = time.perf_counter(), time.process_time()
        page.evaluate("location.hash = 'clip=clip-000&frame=40'")
        page.wait_for_function(DRAWN, polling=10)
        times[f"first_frame_{name}_s"] = round(time.perf_counter() - began, 2)
        times[f"first_frame_{name}_server_cpu_s"] = round(time.process_time() - cpu, 2)
        page.wait_for_function(WHOLE, polling=10, timeout=300_000)
        times[f"whole_{name}_frame_requests"] = len(asked)
        times[f"whole_{name}_s"] = round(time.perf_counter() - began, 2)
        times[f"whole_{name}_server_cpu_s"] = round(time.process_time() - cpu, 2)
        page.evaluate("location.hash = ''")
        asked.clear()
        page.wait_for_selector("#grid-page:not([hidden])")
    times["held_mib"] = viewer.clips.held >> 20
    page.close()
    viewer.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="Also the largest index as files of this folder, made once.")
    parser.add_argument("--frames", type=int, default=81)
    asked = parser.parse_args()
    results: dict[str, Any] = {"loaded": [round(one, 1) for one in os.getloadavg()], "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root = Path(folder) / "data"
        write_shard(root, asked.frames)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        first_paint(browser, str(root))  # the browser's own beginnings are not ours
        results["clip"] = open_clip(browser, root)
        if asked.folder:
            large = in_files(root, asked.folder, -(-max(asked.rows) // SHARD))
            for name in ("folder", "folder_again"):  # the first time its facts are made
                results[name] = first_paint(browser, large)
                results[name]["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        for rows in asked.rows:
            name = f"rows{rows}"
            results[name] = first_paint(browser, in_memory(root, name, -(-rows // SHARD)))
            results[name]["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        browser.close()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
