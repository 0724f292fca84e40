"""What this machine and its Python offer, and what would go wrong on it before a long run does."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "note", "bad"]

_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
"""Distributions that all install into one folder, `cv2`."""
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "build": ("ray", "onnxruntime", "scenedetect"),
    "production": ("safetensors", "scipy", "segment_anything", "timm", "torch", "torchvision", "transformers"),
    "people": ("mediapipe", "embreex", "scipy", "threadpoolctl"),
    "render": ("mitsuba", "mujoco", "embreex", "pyoidn", "OpenEXR"),
    "score": ("hotcoco", "jinja2", "OpenEXR"),
    "train": ("torch", "diffusers", "transformers", "safetensors", "tensorboard"),
    "measures": ("torch", "torchvision", "timm", "open_clip"),
}
"""Import names by extra of `pip install openuni[…]`."""
_RAY_SHARED_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `note` is worth knowing; `bad` makes wrong numbers or a crash likely."""

    name: str
    verdict: Verdict
    what: str


def opencv_conflict(versions: Mapping[str, str]) -> str | None:
    """What is wrong with the OpenCV distributions in `versions` (by name), or None.

    They overwrite each other's files, so that two versions leave a mixture that no test has seen.

    Example:
        >>> opencv_conflict({"opencv-python": "5.0.0.93", "opencv-contrib-python": "5.0.0.93"})
        >>> print(opencv_conflict({"opencv-python": "5.0.0.93", "opencv-contrib-python": "5.1.0.95"}))
        opencv-python 5.0.0.93, opencv-contrib-python 5.1.0.95 share one folder; run: pip install opencv-python==5.0.0.93 opencv-contrib-python==5.0.0.93
    """  # noqa: E501
    if len(set(versions.values())) < 2:
        return None
    oldest = min(versions.values(), key=lambda version: [int(part) for part in version.split(".") if part.isdigit()])
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    remedy = " ".join(f"{name}=={oldest}" for name in versions)
    return f"{listed} share one folder; run: pip install {remedy}"


def opencv_versions() -> dict[str, str]:
    """Version by distribution of everything installed that brings `cv2`."""
    versions = {}
    for name in _OPENCV:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def examine() -> Iterator[Check]:
    """Every check, in the order of the report. Loads neither torch nor Ray."""
    yield Check("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")
    yield _opencv()
    for extra, packages in _EXTRAS.items():
        yield _extra(extra, packages)
    yield _machine()
    yield _shared_memory()
    yield _model_files()


def _opencv() -> Check:
    versions = opencv_versions()
    conflict = opencv_conflict(versions)
    if conflict:
        return Check("opencv", "bad", conflict)
    return Check("opencv", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _extra(extra: str, packages: tuple[str, ...]) -> Check:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return Check(extra, "ok", "installed")
    return Check(extra, "note", f"{', '.join(missing)} not installed; if you need it: pip install 'openuni[{extra}]'")


def _machine() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    cards = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return Check("machine", "ok", f"{cores} cores, {memory:.0f} GiB memory, {free:.0f} GiB free here, {cards} GPUs")


def _shared_memory() -> Check:
    place = Path("/dev/shm")
    free = shutil.disk_usage(place).free if place.is_dir() else 0
    if free < _RAY_SHARED_MEMORY:
        return Check("shared memory", "note", f"{free / 2**30:.1f} GiB in {place}; Ray and data loaders like 2 or more")
    return Check("shared memory", "ok", f"{free / 2**30:.0f} GiB in {place}")


def _model_files() -> Check:
    from openuni import assets

    light = [asset for asset in (one.asset for one in assets.installed().values()) if asset.light]
    missing = [asset for asset in light if not assets.is_cached(asset)]
    if missing:
        return Check(
            "model files", "note", f"{len(missing)} of {len(light)} missing; run: openuni assets fetch --light"
        )
    return Check("model files", "ok", f"all {len(light)} of the light experts and the demo, in {assets.folder()}")
