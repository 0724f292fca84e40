"""Text from outside: nothing that a terminal, Rich or Markdown obeys is left; what people write is."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from openuni import printable

HARMFUL = [
    "\x1b[2J",
    "\x9b31m",
    "\x07",
    "\x00",
    "\x7f",
    "\u202eevil",
    "\u2066x",
    "\u2028",
    "\ud800",
    "\ue000",
    "\ufeff",
]


@pytest.mark.parametrize("text", HARMFUL, ids=ascii)
def test_what_a_terminal_obeys_becomes_visible(text: str) -> None:
    for shown in (printable.plain(text), printable.rich(text), printable.markdown(text)):
        assert shown.isprintable()
        assert shown.encode()  # it is text that can be written
        assert "\\u" in shown


@pytest.mark.parametrize(
    "text", ["雨の中を歩く人", "naïve café", "👩\u200d🚀 flies", "می\u200cخواهم", "a [b] {c} <d>", "50 % of x_y"]
)
def test_what_people_write_stays(text: str) -> None:
    assert printable.plain(text) == text


def test_markup_is_shown_and_not_obeyed() -> None:
    for text in ("[red]x[/red]", "[/red]", "[link=file:///etc/passwd]x[/link]", "x\\", "[bold", "a[/]b"):
        shown = io.StringIO()
        Console(file=shown, width=200).print(f"{printable.rich(text)}[bold]|end[/bold]")
        assert shown.getvalue() == f"{text}|end\n"
    assert "\\<script\\>" in printable.markdown("<script>")
    assert "\\|" in printable.markdown("a|b")
    assert "\\n" not in printable.markdown("a\n# b")


def test_a_line_of_the_log_stays_json_and_long_text_is_cut() -> None:
    line = json.dumps({"error": "\x1b\x9b\u202e é"}, ensure_ascii=False)
    assert json.loads(printable.plain(line)) == {"error": "\x1b\x9b\u202e é"}
    assert len(printable.plain("x" * 10**6)) == printable.MOST + 1
