"""Clips whose frame numbers are burnt into every column as bars, and how the page and its server are asked for them."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation
from openuni_pipelines.engine.viewing.server import Viewer

COLUMNS = {name: f"{name}-1" for name in ("rgb", "depth", "flow", "segmentation", "skeleton")}
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> & <script>document.title='taken'</script>"
RATES = (12.0, 25.0, 30000 / 1001, 60.0)
T, H, W = 40, 32, 64


def bits(frame: int) -> np.ndarray:
    """The frame's number as eight upright bars, bool `[H, W]`: what is burnt into every column."""
    return np.repeat([bool(frame >> bit & 1) for bit in range(8)], W // 8)[None].repeat(H, 0)


def burnt(fps: float) -> dict[str, Annotation[Any]]:
    """All columns of a clip with its frame numbers; the last map of a flow lies beside its last frame."""
    marks = np.stack([bits(frame) for frame in range(T)])
    joints = np.zeros((T, 1, 17, 3), np.float32)
    joints[..., 0] = np.arange(T)[:, None, None] + np.linspace(2, 20, 17)
    joints[..., 1], joints[..., 2] = np.linspace(3, 28, 17), 1
    boxes = np.array([0, 0, W - 1, H - 1], np.float32).reshape(1, 1, 4).repeat(T, 0)
    motion = np.stack([np.where(marks[:-1], 3.0, -3.0), np.zeros((T - 1, H, W))], -1).astype(np.float32)
    table = (Instance(3, "dark bar", 0.5), Instance(7, "light bar", None, 4))
    return {
        "rgb": Annotation(Rgb(np.where(marks, 235, 20)[..., None].repeat(3, -1).astype(np.uint8), fps, exact=True)),
        "depth": Annotation(Depth(np.where(marks, 2.0, 7.5).astype(np.float32), "metric", exact=True), 0.25),
        "flow": Annotation(Flow(motion), 0.75),
        "segmentation": Annotation(Segmentation(np.where(marks, 7, 3).astype(np.int32), table)),
        "skeleton": Annotation(Skeleton(joints, boxes, np.array([1], np.int32), H, W)),
    }


def get(
    viewer: Viewer,
    path: str,
    *,
    token: str | None = None,
    host: str = "",
    open: http.client.HTTPConnection | None = None,
    **arguments: object,
) -> Any:
    """Status and parsed JSON (or bytes) of a GET, on a connection of its own unless one is `open`."""
    port = urlsplit(viewer.url).port
    connection = open or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    query = urlencode({**arguments, "token": viewer.token if token is None else token})
    connection.request("GET", f"{path}?{query}", headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    if open is None:
        connection.close()
    return answer.status, json.loads(body) if answer.headers["Content-Type"] == "application/json" else body


def settled(page: Any, frame: int) -> None:
    """Wait until every pane says that it drew the frame. Fails at once, with its sentence, where the page tells of an
    error."""
    ready = "n => { const all = [...document.querySelectorAll('.pane .frame canvas:first-child')], told = $('error');"
    done = "return all.length && all.every(pane => pane.dataset.frame === String(n)) }"
    page.wait_for_function(f"{ready} if (!told.hidden) return true; {done}", arg=frame)
    assert page.is_hidden("#error"), page.locator("#error").text_content()
