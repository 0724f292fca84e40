"""One file an expert; `get(name)` finds it, built-in or registered by another distribution."""

from openuni.experts.base import DecodedClip, Expert, Measured, Resources, get

__all__ = ["DecodedClip", "Expert", "Measured", "Resources", "get"]
