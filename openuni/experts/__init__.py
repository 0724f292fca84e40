"""One file an expert; `get(name)` finds it, built-in or registered by another distribution."""

from openuni.experts.base import Expert, Footage, Resources, get

__all__ = ["Expert", "Footage", "Resources", "get"]
