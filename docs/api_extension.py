"""For the API pages: docstrings and defaults as a reader looks for them."""

from __future__ import annotations

from typing import Any

import griffe


class Readable(griffe.Extension):
    """Reads `Example:`, as torchmetrics writes, as `Examples:`, and `x: int = field(default=1, …)` as `x: int = 1`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute once it is collected."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
        if isinstance(obj, griffe.Attribute) and isinstance(obj.value, griffe.ExprCall):
            call = obj.value
            if str(call.function) == "field":
                given = {one.name: one.value for one in call.arguments if isinstance(one, griffe.ExprKeyword)}
                obj.value = given.get("default")
