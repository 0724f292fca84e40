"""A local server in the place of a hub, with random weights in the published format and names."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from openuni import assets
from openuni.assets import Asset, Url


def serve(served: tuple[Path, str], asset: Asset, content: Path) -> Asset:
    """The asset as if `content` were its published file: pinned, served, and fetched into the cache."""
    folder, address = served
    (folder / asset.name).write_bytes(content.read_bytes())
    data = content.read_bytes()
    pinned = replace(
        asset, sha256=hashlib.sha256(data).hexdigest(), size=len(data), sources=(Url(f"{address}/{asset.name}"),)
    )
    assets.fetch(pinned)
    return pinned
