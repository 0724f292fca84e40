"""Text from outside (captions, keys, reasons, names of columns, paths) on its way to a terminal, a page or a log.

A terminal obeys escape sequences, Rich obeys `[red]`, Markdown obeys HTML, and a bidirectional mark shows a line in
another order than it has. All of it becomes visible text here, and nothing is lost but what is too long.
"""

from __future__ import annotations

import re
import unicodedata

MOST = 2000
"""Characters that are shown of one text."""
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")
"""Persian, Indic scripts and emoji are written with them."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!])")


def plain(text: str, at_most: int = MOST) -> str:
    r"""One line of visible characters: each other one as JSON would escape it, so that a log line stays JSON.

    Example:
        >>> plain("a\x1b[31mred\nb")
        'a\\u001b[31mred b'
        >>> plain("雨の中 🎬 naïve")
        '雨の中 🎬 naïve'
    """
    shown = text if len(text) <= at_most else f"{text[:at_most]}…"
    return "".join(_visible(character) for character in shown)


def rich(text: str, at_most: int = MOST) -> str:
    r"""`plain`, with Rich's markup escaped.

    Example:
        >>> rich("[red]x[/red]")
        '\\[red]x\\[/red]'
    """
    from rich.markup import escape

    return escape(plain(text, at_most))


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number of things: `noun` for one, else `nouns`, which need not be given where an s makes it.

    Example:
        >>> count(1, "clip"), count(0, "clip"), count(12345, "clip"), count(2, "person", "people")
        ('1 clip', '0 clips', '12,345 clips', '2 people')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def markdown(text: str, at_most: int = MOST) -> str:
    r"""`plain`, with what Markdown and HTML obey escaped.

    Example:
        >>> markdown("<script>|x")
        '\\<script\\>\\|x'
    """
    return _MARKDOWN.sub(r"\\\1", plain(text, at_most))


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if unicodedata.category(character) not in _HARMFUL or character in _JOINERS:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
