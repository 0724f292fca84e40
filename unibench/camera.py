"""A pinhole camera that may move and zoom: one intrinsic matrix and one pose a frame, in OpenCV's axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """Intrinsics `[T, 3, 3]` in pixels and poses `[T, 4, 4]`, camera to world, in metres; both float64.

    The camera looks along +z, x points right, y down. Pixel (row i, column j) is the point (j + .5, i + .5): the
    image spans [0, width] × [0, height]; 0 × 0 where a file does not say its size.
    """

    intrinsics: Floats
    pose: Floats
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        frames = len(self.pose)
        if self.intrinsics.shape != (frames, 3, 3) or self.pose.shape != (frames, 4, 4):
            raise InvalidAnnotationError(
                f"camera: intrinsics {self.intrinsics.shape} and pose {self.pose.shape}; give [T,3,3] and [T,4,4]"
            )

    def __len__(self) -> int:
        return len(self.pose)

    def cut(self, frames: int) -> Camera:
        """The first frames, as longer predictions are cut. Raises InvalidAnnotationError where there are fewer."""
        if len(self) < frames:
            raise InvalidAnnotationError(f"camera: {len(self)} frames; the clip has {frames}")
        return replace(self, intrinsics=self.intrinsics[:frames], pose=self.pose[:frames])

    def checked(self) -> Camera:
        """Itself. Raises InvalidAnnotationError where a matrix is not finite or has no inverse."""
        for name, matrices in (("intrinsics", self.intrinsics), ("poses", self.pose)):
            if not (np.isfinite(matrices).all() and (np.abs(np.linalg.det(matrices)) > 1e-9).all()):
                raise InvalidAnnotationError(f"camera: {name} of some frame are not finite or have no inverse")
        return self

    def to_camera(self, t: int, world: Floats) -> Floats:
        """World points `[..., 3]` in the axes of the camera of frame `t`."""
        turned: Floats = (world - self.pose[t, :3, 3]) @ self.pose[t, :3, :3]
        return turned

    def to_world(self, t: int, points: Floats) -> Floats:
        """Points `[..., 3]` in the axes of the camera of frame `t`, in the world."""
        world: Floats = points @ self.pose[t, :3, :3].T + self.pose[t, :3, 3]
        return world

    def project(self, t: int, points: Floats) -> Floats:
        """Pixel coordinates `[..., 2]` (x, y) of points in camera axes; NaN where z ≤ 0."""
        z = points[..., 2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            image = points / np.where(z > 0, z, np.nan) @ self.intrinsics[t].T
        return np.asarray(image[..., :2])

    def pixels(self, supersample: int = 1) -> Floats:
        """Centres of the pixels, row by row, `[H·W·s², 2]`; `supersample` s splits each side of a pixel in s."""
        x = (np.arange(self.width * supersample) + 0.5) / supersample
        y = (np.arange(self.height * supersample) + 0.5) / supersample
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)

    def rays(self, t: int, pixels: Floats) -> Floats:
        """Directions `[..., 3]` in camera axes with z = 1, so that a ray's parameter is the planar depth."""
        K = self.intrinsics[t]
        y = (pixels[..., 1] - K[1, 2]) / K[1, 1]
        x = (pixels[..., 0] - K[0, 2] - K[0, 1] * y) / K[0, 0]
        return np.stack([x, y, np.ones_like(x)], axis=-1)


def intrinsics(focal: float, height: int, width: int) -> Floats:
    """`[3, 3]` for square pixels, the axis through the middle of the image and `focal` in image widths."""
    f = focal * width
    return np.array([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]])


def look_at(eye: Floats, target: Floats) -> Floats:
    """The pose `[4, 4]` of a level camera at `eye` that looks at `target`, in a world whose z points up.

    Raises InvalidAnnotationError where the view is straight up or down, for then no side is up.
    """
    forward = target - eye
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-9 * np.linalg.norm(forward) or not forward.any():
        raise InvalidAnnotationError(f"camera at {eye} cannot look at {target} and stay level; move one of them")
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose
