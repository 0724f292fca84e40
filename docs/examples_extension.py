"""For the API pages: docstrings say `Example:`, as torchmetrics does, where the parser knows `Examples:`."""

from __future__ import annotations

from typing import Any

import griffe


class SingularExamples(griffe.Extension):
    """Reads `Example:` as `Examples:`, so that what follows is shown as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute once it is collected."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
