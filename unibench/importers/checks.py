"""Claims of a source put to the test: units, planar depth, precision, and whose motion the flow is.

All rest on one prediction: a static point at a known depth moves as the camera says (`static_flow`).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from unibench.camera import Camera

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_UNITS = {1.0: "metres", 0.01: "centimetres", 0.001: "millimetres", 100.0: "hundreds of metres"}
"""What a stored unit is in metres, if the poses are in metres."""


def static_flow(camera: Camera, depth: Singles, source: int, target: int) -> Singles:
    """Motion `[H, W, 2]` of the points of frame `source`, were nothing but the camera to move; NaN without depth.

    `depth` `[H, W]` is planar, in the units of the camera's poses.
    """
    pixels = camera.pixels().reshape(camera.height, camera.width, 2)
    points = camera.rays(source, pixels) * depth[..., None].astype(np.float64)
    moved = camera.project(target, camera.to_camera(target, camera.to_world(source, points)))
    return (moved - pixels).astype(np.float32)


def planar(camera: Camera, radial: Singles) -> Singles:
    """Planar depth `[T, H, W]` from distances to the centre of the camera."""
    length = [np.linalg.norm(camera.rays(t, camera.pixels()), axis=1) for t in range(len(camera))]
    return np.asarray(radial / np.array(length).reshape(radial.shape), np.float32)


def check_not_half(values: Singles, path: Path, what: str) -> None:
    """Raise InvalidAnnotationError if float32 values went through half precision: every one survives the trip back."""
    finite = values[np.isfinite(values) & (values != 0)]
    if finite.size > 100 and len(np.unique(finite)) > 50:
        with np.errstate(over="ignore"):
            same = finite.astype(np.float16).astype(np.float32) == finite
        if same.all():
            raise InvalidAnnotationError(
                f"{path}: {what} is float32 that went through half precision (11 bits, at most 65,504); "
                "export it again in 32 bits"
            )


def check_depth(camera: Camera, depth: Singles, where: str) -> str:
    """Try units and planar against radial depth on the moving camera; a sentence of evidence.

    Depth of one frame is carried to another by the poses and compared with the depth found there. Raises
    InvalidAnnotationError where another reading explains the frames five times better, to 1 %; says so where the camera
    stands still or neighbours share nothing, for then nothing can be told.
    """
    last = len(camera) - 1
    spans = {span for span in (1, last // 2, last) if span > 0}
    pairs = [(t, t + span) for span in spans for t in range(0, len(camera) - span, max(1, last // 4))]
    travel = {(a, b): float(np.linalg.norm(camera.pose[b, :3, 3] - camera.pose[a, :3, 3])) for a, b in pairs}
    pairs = sorted((pair for pair in pairs if travel[pair] > 1e-4), key=lambda pair: -travel[pair])[:6]
    if not pairs:
        return "the camera does not move from its place: units and kind of depth could not be checked"
    rays = [
        np.linalg.norm(camera.rays(t, camera.pixels()), axis=1).reshape(depth.shape[1:]) for t in range(len(camera))
    ]
    errors = dict[tuple[float, str], float]()
    for unit in _UNITS:
        for kind in ("planar", "radial"):
            scaled = [
                depth[t] * np.float32(unit) / (rays[t] if kind == "radial" else np.float32(1))
                for t in range(len(depth))
            ]
            found = [mismatch(camera, scaled[a], scaled[b], a, b) for a, b in pairs]
            errors[unit, kind] = float(np.median([e for e in found if np.isfinite(e)] or [np.inf]))
    best = min(errors, key=lambda reading: errors[reading])
    claimed = errors[1.0, "planar"]
    if errors[best] < 0.01 and errors[best] < 0.2 * claimed:
        unit, kind = best
        raise InvalidAnnotationError(
            f"{where}: depth agrees with the poses as {kind} depth in {_UNITS[unit]} (median error "
            f"{errors[best]:.2%}), not as planar depth in metres ({claimed:.2%}); convert it and import again"
        )
    if not np.isfinite(claimed):
        return "no two frames tried show a common part: units and kind of depth could not be checked"
    return f"depth carried along the poses meets that of other frames to {claimed:.2%} (median)"


def mismatch(camera: Camera, before: Singles, after: Singles, source: int, target: int) -> float:
    """Median relative difference between depth `[H, W]` carried by the poses from one frame to another and the depth
    found there; infinite where the two share less than 50 pixels. Small where most of the scene is still and seen."""
    pixels = camera.pixels().reshape(camera.height, camera.width, 2)
    points = camera.rays(source, pixels) * before[..., None].astype(np.float64)
    points = camera.to_camera(target, camera.to_world(source, points))
    x, y = np.moveaxis(np.nan_to_num(camera.project(target, points), nan=-1), -1, 0)
    inside = (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
    at = [(axis[inside] - 0.5).astype(np.float32).reshape(-1, 1) for axis in (x, y)]
    # Disparity, for it is linear across a plane.
    found = _in_rows((1 / after).astype(np.float32), *at)
    difference = np.abs(1 / found / points[inside][:, 2] - 1)
    difference = difference[np.isfinite(difference)]
    return float(np.median(difference)) if len(difference) >= 50 else np.inf


def camera_only(
    camera: Camera, depth: Singles, ids: npt.NDArray[np.int32], motion: Singles, *, backward: bool
) -> list[int]:
    """Ids of objects that move while their flow `[T−1, H, W, 2]` (forward, or `backward`) is the camera's own.

    An object moves when its points in the world do: the centre of its box shifts by more than 2 % of its distance. Its
    flow is the camera's when it stays within .05 px of what a static object would show.
    """
    found = set()
    for t, flow in enumerate(motion):
        source, target = (t + 1, t) if backward else (t, t + 1)
        off = np.linalg.norm(flow - static_flow(camera, depth[source], source, target), axis=-1)
        for thing in np.intersect1d(ids[t], ids[t + 1]):
            here, there = ids[source] == thing, ids[target] == thing
            if thing == 0 or min(here.sum(), there.sum()) < 50 or _touches_border(here) or _touches_border(there):
                continue
            step = _centre(camera, depth, target, there) - _centre(camera, depth, source, here)
            if np.linalg.norm(step) > 0.02 * np.nanmedian(depth[source][here]) and np.nanmedian(off[here]) < 0.05:
                found.add(int(thing))
    return sorted(found)


def invert_flow(motion: Singles) -> Singles:
    """The opposite flow `[H, W, 2]`: the fixed point y of y + motion(y) = x gives y − x at x; NaN where there is none.

    Found by iterating y ← x − motion(y). Where the iteration does not settle to .01 px the point has no counterpart
    (occluded, out of frame); where motion differs by more than a quarter pixel between neighbours it lies on an edge.
    """
    height, width = motion.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grid = np.stack([x, y], axis=-1)
    # An unknown motion must poison what touches it, not wander through the iteration.
    field = np.nan_to_num(motion, nan=1e6)
    guess = grid - field
    for _ in range(30):
        guess = grid - _sample(field, guess)
    residual = np.linalg.norm(guess + _sample(field, guess) - grid, axis=-1)
    square = np.ones((3, 3), np.uint8)
    spread = (cv2.dilate(field, square) - cv2.erode(field, square)).max(axis=-1, keepdims=True)
    even = _sample(spread, guess).reshape(height, width) < 0.5  # over two pixels
    settled = (residual < 0.01) & even & (np.abs(guess - grid).max(axis=-1) < 2 * max(height, width))
    return np.where(settled[..., None], guess - grid, np.float32(np.nan))


def _sample(field: Singles, at: Singles) -> Singles:
    """Bilinear values of `field` at indices `at`; far away outside."""
    bounded = np.clip(at, -2, 32000)
    return np.asarray(
        cv2.remap(
            field,
            bounded[..., 0],
            bounded[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(1e6, 1e6),
        )
    )


def _in_rows(image: Singles, x: Singles, y: Singles) -> Singles:
    """Bilinear values `[N]` of `image` at indices `[N, 1]`; OpenCV takes at most 32,767 rows at a time."""
    parts = [
        cv2.remap(image, x[k : k + 30000], y[k : k + 30000], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for k in range(0, len(x), 30000)
    ]
    return np.concatenate(parts)[:, 0] if parts else np.zeros(0, np.float32)


def _centre(camera: Camera, depth: Singles, t: int, mask: npt.NDArray[np.bool_]) -> Floats:
    """Middle of the box, in the world, about the points that a mask shows."""
    pixels = camera.pixels().reshape(camera.height, camera.width, 2)[mask]
    points = camera.to_world(t, camera.rays(t, pixels) * depth[t][mask][:, None].astype(np.float64))
    return np.asarray((np.nanmin(points, axis=0) + np.nanmax(points, axis=0)) / 2)


def _touches_border(mask: npt.NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
