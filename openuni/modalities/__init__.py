"""One file a modality; `get(name)` finds it, built-in or registered by another distribution."""

from openuni.modalities.base import Box, Encoded, Frames, Modality, Pictures, Reading, get

__all__ = ["Box", "Encoded", "Frames", "Modality", "Pictures", "Reading", "get"]
