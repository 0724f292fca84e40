"""The scene graph: what is there, how it moves and what lights it. Every truth and every picture comes from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from unibench.camera import Camera
from unibench.scenes.meshes import Mesh
from unibench.scenes.textures import Picture
from unibench.state import State

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """What makes an instance a person: part of each face `[F]` uint8 (1–24, DensePose's numbers), chart coordinates of
    each vertex `[V, 2]`, weights of the COCO-17 key points over the vertices `[17, V]`, and whose charts they are."""

    parts: npt.NDArray[np.uint8]
    chart: Floats
    regressor: Floats
    layout: str


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One thing: its mesh at rest, its vertices in the world in each frame `[T, V, 3]` (metres), its texture.

    `thing` tells objects that a segmentation counts from the stage (floor, walls), which it does not. Only people have
    a `skin`.
    """

    name: str
    class_name: str
    mesh: Mesh
    vertices: Floats
    texture: Picture
    thing: bool = True
    skin: Skin | None = None

    def __post_init__(self) -> None:
        if self.vertices.shape[1:] != self.mesh.vertices.shape:
            raise InvalidAnnotationError(
                f"{self.name}: vertices {self.vertices.shape} do not repeat the mesh's {self.mesh.vertices.shape}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """A distant lamp towards `direction` (unit, world) and the sky's light; colours `[3]` are linear RGB."""

    direction: Floats
    sun: Floats
    sky: Floats
    horizon: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """T frames of instances before a camera. Instance k has id k + 1 in the truth; 0 is the sky."""

    instances: tuple[Instance, ...]
    camera: Camera
    light: Light
    state: State
    caption: str
    fps: float

    def __post_init__(self) -> None:
        for instance in self.instances:
            if len(instance.vertices) != len(self.camera):
                raise InvalidAnnotationError(
                    f"{instance.name} has {len(instance.vertices)} frames, the camera {len(self.camera)}"
                )

    def __len__(self) -> int:
        return len(self.camera)


def still(mesh: Mesh, pose: Floats, frames: int) -> Floats:
    """Vertices `[T, V, 3]` of a mesh that stays at `pose` `[4, 4]`; a view of one frame, not T copies."""
    vertices = mesh.vertices @ pose[:3, :3].T + pose[:3, 3]
    return np.broadcast_to(vertices, (frames, *vertices.shape))


def rigid(mesh: Mesh, rotation: Floats, position: Floats) -> Floats:
    """Vertices `[T, V, 3]` of a mesh under rotations `[T, 3, 3]` and positions `[T, 3]`."""
    return np.asarray(mesh.vertices @ rotation.transpose(0, 2, 1) + position[:, None])
