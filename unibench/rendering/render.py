"""From a specification to a rendered sample: the scene, its exact truth, its picture and its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Subset
from unibench.formats import sidecar
from unibench.rendering.shaded import shade
from unibench.rendering.truth import Singles, Truth, trace
from unibench.scenes.families import Spec, build
from unibench.state import State

_FARTHEST = 4.0
"""Motion in longer sides of the image beyond which a pixel's flow is left unknown: a point that grazes the lens."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A rendered clip: `rgb` uint8 `[T, H, W, 3]` and all that is known of it. Never to be called a real video."""

    spec: Spec
    rgb: npt.NDArray[np.uint8]
    truth: Truth
    state: State
    caption: str

    @property
    def key(self) -> str:
        """The sample's key; it names the scene, so that the same one can be made again."""
        return f"{self.spec.family}-{self.spec.seed:06d}"

    @property
    def subset(self) -> Subset:
        """Which of the paper's three subsets the clip belongs to."""
        people = self.truth.people
        count = 0 if people is None else people.keypoints.shape[1]
        return {1: "single_person", 2: "two_person"}.get(count, "general")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, eq=False)
class Modalities:
    """Truth as OpenUni's modalities hold it. Segmentation counts things; floor, walls and sky are background.

    A scene without people has neither skeleton nor DensePose.
    """

    depth: Depth
    flow: Flow
    segmentation: Segmentation
    skeleton: Skeleton | None
    densepose: DensePose | None


def render_scene(spec: Spec, rgb: Literal["shaded", "mitsuba"] = "shaded") -> Rendered:
    """Build, trace and picture one scene. The same specification gives the same truth in every process.

    `rgb`: the rays at hand (`unibench.rendering.shaded`), or paths traced by Mitsuba (`unibench.rendering.mitsuba`).
    """
    scene = build(spec)
    if rgb == "mitsuba":
        from unibench.rendering.mitsuba import photograph

        frames = photograph(scene)
    else:
        frames = shade(scene)
    return Rendered(spec, frames, trace(scene), scene.state, scene.caption)


def modalities(truth: Truth) -> Modalities:
    """The truth as modality values, marked exact so that storage keeps float32."""
    longest = _FARTHEST * max(truth.camera.height, truth.camera.width)
    flow = Flow(
        _bounded(truth.forward, longest),
        truth.occluded,
        _bounded(truth.backward, longest),
        truth.disoccluded,
        exact=True,
    )
    counted = np.zeros(len(truth.things) + 1, np.int32)
    for thing in truth.things:
        counted[thing.id] = thing.id if thing.thing else 0
    rows = tuple(Instance(thing.id, thing.class_name) for thing in truth.things if thing.thing)
    skeleton = densepose = None
    if (people := truth.people) is not None:
        tracks = np.arange(1, people.keypoints.shape[1] + 1, dtype=np.int32)
        size = truth.camera.height, truth.camera.width
        skeleton = Skeleton(people.keypoints, people.boxes, tracks, *size, world=people.world)
        densepose = DensePose(people.surface, people.layout)
    depth = Depth(truth.depth, "metric", exact=True)
    return Modalities(depth, flow, Segmentation(counted[truth.ids], rows), skeleton, densepose)


def _bounded(motion: Singles, longest: float) -> Singles:
    far = np.abs(motion).max(axis=-1, keepdims=True) > longest
    return np.where(far, np.float32(np.nan), motion)


def side_files(rendered: Rendered) -> dict[str, bytes]:
    """The files that lie beside a rendered clip's columns, by name; the same clip gives the same bytes."""
    truth = rendered.truth
    return {
        "camera.npz": sidecar.encode_camera(truth.camera),
        "normals.npz": sidecar.encode_normals(truth.normals),
        "state.json": sidecar.encode_state(rendered.state, digest=truth.digest(), fingerprint=truth.fingerprint()),
    }
