"""A sample in a notebook is one frame of its own that holds all pictures, and what a caption says stays text."""

from __future__ import annotations

import html
from dataclasses import replace

import openuni
from openuni.sample import Sample, Status
from tests.openuni.test_contact_sheet import sample_of


def test_all_columns_are_there_and_a_caption_is_text() -> None:
    made = sample_of()
    hostile = '</iframe><script>alert(1)</script>"'
    statuses = made.statuses | {"densepose": Status(False, "nobody <b>there</b>")}
    sample = Sample(replace(made.record, caption=hostile), statuses, made.__getitem__)
    shown = openuni.view(sample)._repr_html_()
    assert shown.count("<") == 2  # the frame opens and closes; all else is escaped
    inside = html.unescape(shown)
    for name in ("rgb", "depth", "flow", "segmentation"):
        assert f'"{name}": ["' in inside
    assert "&lt;script&gt;alert(1)" in inside
    assert "densepose is absent: nobody &lt;b&gt;there&lt;/b&gt;" in inside
    assert "http" not in inside
