"""A dataset in a browser: `catalogue` finds clips, `clips` decodes them, `flags` keeps what people say of them, and
`server` hands all of it to one page on the loopback interface."""

from openuni_pipelines.engine.viewing.server import Viewer

__all__ = ["Viewer"]
