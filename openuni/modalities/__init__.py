"""One file a modality; `get(name)` finds it, built-in or registered by another distribution."""

from openuni.modalities.base import Box, ColourRange, Encoded, Frames, Modality, Pictures, Reading, get

__all__ = ["Box", "ColourRange", "Encoded", "Frames", "Modality", "Pictures", "Reading", "get"]
