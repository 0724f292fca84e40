"""OpenUni: video with depth, flow, segmentation, skeleton and DensePose, in WebDataset shards with a Parquet index.

Example:
    >>> import openuni
    >>> data = openuni.open("data/demo")
    >>> sample = data["bikes-street"]
    >>> sample.rgb.frames.shape  # uint8 [T, H, W, 3]
    (4, 16, 24, 3)
    >>> sample.depth.values.dtype  # [T, H, W]
    dtype('float32')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from openuni.notebook import View
    from openuni.sample import Sample
    from openuni.shards.reader import Dataset

__all__ = ["Dataset", "open", "view"]
__version__ = "0.1.0"


def open(
    path: str | PathLike[str], *, cache_dir: str | PathLike[str] | None = None, cache_size: int = 100 * 10**9
) -> Dataset:
    """Open a dataset folder: a local path or any fsspec URL; or a view of one, a file that `openuni select` wrote, also
    at a URL.

    What is read of a dataset at a URL is kept in `cache_dir`, up to `cache_size` bytes: a second epoch reads it there.
    Raises PlanError where it is not a dataset, or the cache is somebody else's folder, CorruptDataError where its
    manifest or the view is damaged.

    Example:
        >>> openuni.open("data/demo").columns
        ['rgb', 'depth', 'flow']
    """
    from pathlib import Path

    from openuni.shards import view
    from openuni.shards.reader import Dataset
    from openuni.storage import Cache

    cache = None if cache_dir is None else Cache(Path(cache_dir), cache_size)
    if not view.is_view(str(path)):
        return Dataset(str(path), cache)
    chosen = view.read(str(path))
    return Dataset(chosen.dataset, cache).only(chosen.keys)


def view(sample: Sample) -> View:
    """Show a sample in a notebook: all its columns, small, by one slider. `openuni view` shows whole datasets.

    Raises CorruptDataError where a column is damaged.

    Example:
        >>> type(openuni.view(openuni.open("data/demo")["bunny"])).__name__
        'View'
    """
    from openuni import notebook

    return notebook.view(sample)


def __getattr__(name: str) -> Any:
    # `openuni.Dataset`, without Arrow and a video library for those who only want the version.
    if name == "Dataset":
        from openuni.shards.reader import Dataset

        return Dataset
    raise AttributeError(f"module 'openuni' has no attribute {name!r}")
