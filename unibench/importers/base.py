"""What every importer gives: a clip in OpenUni's units, axes, signs and directions, whatever its files say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import Skeleton
from unibench.camera import Camera


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of the source that does not become a clip, and why."""

    what: str
    why: str


def unread(root: Path, used: Iterable[Path]) -> Iterator[LeftOut]:
    """What of a folder is in no clip: every file below it that is not among `used`, a line a folder.

    A folder of which nothing is used is one line, with all that lies below it.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("rgb/0.png", "rgb/1.png", "extra/a/0.txt", "extra/b/1.txt"):
        ...     (root / name).parent.mkdir(parents=True, exist_ok=True)
        ...     (root / name).touch()
        >>> [left.what.replace(str(root), "src") for left in unread(root, [root / "rgb/0.png"])]
        ['2 files of src/extra (0.txt, …)', 'src/rgb/1.png']
    """
    known = {*used}
    holding = {folder for path in known for folder in path.parents}
    others: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path in known or path.is_dir():
            continue
        inside = [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]
        strange = [folder for folder in inside if folder not in holding]
        others.setdefault(strange[-1] if strange else path.parent, []).append(path)
    for folder, paths in others.items():
        many = f"{len(paths)} files of {folder} ({paths[0].name}, …)"
        yield LeftOut(many if len(paths) > 1 else str(paths[0]), "is not read" if len(paths) == 1 else "are not read")


@dataclass(frozen=True, slots=True)
class Categories:
    """The names of a source's categories by the numbers that its `results.json` files use."""

    names: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A clip of T frames. `rgb` uint8 `[T, H, W, 3]`; normals float32 `[T, H, W, 3]`, camera axes, towards the camera.

    What the source has not is None. `notes` are facts that a reader of the scores must know (half precision, flow of
    the camera alone, what was calibrated). `key` is the format's name, a dash and what the source calls the clip, in
    any letters: a legal key is made of it. `number` is the id by which the source's `results.json` files name the clip,
    where it has one; `video` is what people call it who do not name it as `key` does. Raises InvalidAnnotationError
    where sizes disagree.
    """

    key: str
    rgb: npt.NDArray[np.uint8]
    fps: float
    depth: Depth | None = None
    flow: Flow | None = None
    segmentation: Segmentation | None = None
    skeleton: Skeleton | None = None
    normals: npt.NDArray[np.float32] | None = None
    camera: Camera | None = None
    notes: tuple[str, ...] = ()
    number: int | None = None
    video: str = ""

    def __post_init__(self) -> None:
        frames, height, width = self.rgb.shape[:3]
        sizes: dict[str, tuple[int, ...]] = {}
        if self.depth is not None:
            sizes["depth"] = self.depth.values.shape
        if self.flow is not None:
            maps, *rest, _ = self.flow.forward.shape
            sizes["flow"] = (maps + 1, *rest)
        if self.segmentation is not None:
            sizes["segmentation"] = self.segmentation.ids.shape
        if self.normals is not None:
            sizes["normals"] = self.normals.shape[:3]
        if self.camera is not None:
            sizes["camera"] = (len(self.camera), self.camera.height, self.camera.width)
        for name, size in sizes.items():
            if size != (frames, height, width):
                raise InvalidAnnotationError(
                    f"{self.key}: {name} is {size} (frames, height, width), the picture {(frames, height, width)}"
                )
