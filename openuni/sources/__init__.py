"""One file a source; `get(name)` finds it, built-in or registered by another distribution."""

from openuni.sources.base import Entry, Request, Skipped, Source, get

__all__ = ["Entry", "Request", "Skipped", "Source", "get"]
