"""Text that people wrote on some machine: by its byte order mark, else UTF-8, else the one encoding that makes sense.

`charset-normalizer` says what can be read at all. Short captions can be read in many ways, so that only an encoding
counts whose text is in the script it is used for: Hangul for cp949, kana among ideographs for cp932, and so on. Where
two readings are left the text is refused: a caption that is not what somebody wrote is worse than none.
"""

from __future__ import annotations

import codecs
import itertools
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from openuni.errors import OpenUniError

SAMPLE_BYTES = 1 << 20
"""As much of a table as its encoding is told by."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UTF8 = frozenset({"utf-8", "utf-8-sig"})
"""Names of what text is expected to be in."""
CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
"""Control characters that part no words or lines, for Python and DuckDB: a terminal obeys them, and nobody wrote them
into a caption. Marks of direction stay, with which Arabic and Hebrew are written."""
CONTROLS_REMOVED = "control characters were removed from its caption"
"""What is said of a clip whose caption had some."""


class UnknownEncodingError(OpenUniError):
    """Bytes that are text in no encoding, or in several."""


@dataclass(frozen=True, slots=True)
class Text:
    """Decoded text and the encoding, as Python names it."""

    value: str
    encoding: str

    @property
    def is_guessed(self) -> bool:
        return self.encoding not in UTF8 and not self.encoding.startswith(("utf-16", "utf-32"))


def decode(data: bytes) -> Text:
    """`data` as text. Raises UnknownEncodingError where no encoding, or more than one, makes sense of it.

    Example:
        >>> decode("Ein Hund läuft.".encode("cp1252"))
        Text(value='Ein Hund läuft.', encoding='cp1252')
        >>> decode("一只猫在草地上奔跑".encode("gbk")).value
        '一只猫在草地上奔跑'
    """
    marked = _unicode(data)
    if marked is not None:
        try:
            return Text(data.decode(marked), marked)
        except UnicodeDecodeError as error:
            raise UnknownEncodingError(f"text is marked as {marked}, but is not; save it as UTF-8") from error
    try:
        return Text(data.decode(), "utf-8")
    except UnicodeDecodeError:
        return _detect(data)


def encoding_of(sample: bytes) -> str:
    """The encoding of a file that begins with `sample`, as `decode` would tell it.

    A file is UTF-8 where half of its lines beyond ASCII are. Raises UnknownEncodingError.
    """
    marked = _unicode(sample)
    if marked is not None:
        return marked
    # Cut at a line's end, lest half a character is left over.
    whole = sample[: sample.rfind(b"\n") + 1] or sample
    lines = [line for line in whole.splitlines() if not line.isascii()]
    # Many a pair of bytes in another encoding is UTF-8 by chance; many a line is not.
    if 2 * sum(_is_utf8(line) for line in lines) >= len(lines):
        return "utf-8"
    return _detect(whole).encoding


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unicode(data: bytes) -> str | None:
    """The Unicode encoding that a mark, or a NUL in every other byte, tells."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    pairs = len(data) // 2
    if pairs and len(data) % 2 == 0:
        for encoding, at in (("utf-16-le", 1), ("utf-16-be", 0)):
            if data[at::2].count(0) > 0.4 * pairs and data[1 - at :: 2].count(0) < 0.1 * pairs:
                return encoding
    return None


def _detect(data: bytes) -> Text:
    from charset_normalizer import from_bytes

    scores: dict[Text, float] = {}
    for match in from_bytes(data, cp_isolation=list(_SCRIPTS)):
        value = str(match)
        for encoding in match.could_be_from_charset:
            script = _SCRIPTS.get(encoding)
            if script is not None and script.fits(value):
                scores[Text(value, encoding)] = script.commonness(value)
    # Of encodings that give the same text the first in the list names it.
    names = list(_SCRIPTS)
    readings = sorted(scores, key=lambda text: (-scores[text], names.index(text.encoding)))
    rivals = [text for text in readings if text.value != readings[0].value]
    if not readings or (rivals and not _is_preferred(readings[0], rivals[0], scores)):
        ways = ", ".join(sorted(text.encoding for text in readings)) or "none that is known"
        raise UnknownEncodingError(f"text is not UTF-8, and its encoding cannot be told ({ways}); save it as UTF-8")
    return readings[0]


def _is_preferred(best: Text, rival: Text, scores: dict[Text, float]) -> bool:
    """Whether `best` is to be believed: West European among Latin ones, Hangul, or by a clear lead.

    Chinese text hardly ever keeps to the third of GB2312 that reads as Hangul.
    """
    if best.encoding in _LATIN and rival.encoding in _LATIN:
        return True
    if {best.encoding, rival.encoding} == {"cp949", "gb18030"}:
        return best.encoding == "cp949" and len(best.value) >= 4
    return scores[best] - scores[rival] >= 0.15


@dataclass(frozen=True, slots=True)
class _Script:
    """What text in an encoding looks like, and the letters beyond ASCII that make up most of it."""

    fits: Callable[[str], bool]
    common: str = ""

    def commonness(self, text: str) -> float:
        """Share of the letters beyond ASCII that are `common`; 1 where nothing is known of them."""
        letters = [c for c in text.lower() if c > "\x7f" and c.isalpha()]
        return sum(c in self.common for c in letters) / len(letters) if self.common and letters else 1.0


def _is_encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _share(text: str, *scripts: str) -> float:
    """Of the letters beyond ASCII, the share in `scripts`, as Unicode names them; 0 without such letters."""
    letters = [c for c in text if c > "\x7f" and c.isalpha()]
    return sum(unicodedata.name(c, "").startswith(scripts) for c in letters) / max(len(letters), 1)


def _alphabet(script: str) -> Callable[[str], bool]:
    """Whether a text is written in `script`: most letters, and no word half in it and half in ASCII."""

    def fits(text: str) -> bool:
        ascii_letters = sum(c.isascii() and c.isalpha() for c in text)
        others = sum(not c.isascii() and c.isalpha() for c in text)
        mixed = any(a.isalpha() and b.isalpha() and a.isascii() != b.isascii() for a, b in itertools.pairwise(text))
        return not mixed and others >= ascii_letters and _share(text, script) >= 0.98

    return fits


def _is_latin(text: str) -> bool:
    """Letters with accents here and there among plain ones, no sign in the middle of a word, no control character."""
    plain = sum(c.isascii() and c.isalpha() for c in text)
    accented = sum(not c.isascii() and c.isalpha() for c in text)
    inside = any(a.isalpha() and b in "¡¢£¤¥¦§©¬®¯°±²³´¶¸¹º¼½¾¿÷×" for a, b in itertools.pairwise(text))
    controls = any(unicodedata.category(c) == "Cc" and c > "\x7f" for c in text)
    return accented <= plain and not inside and not controls and (accented == 0 or _share(text, "LATIN") == 1)


def _is_simplified(text: str) -> bool:
    return _share(text, "CJK UNIFIED") >= 0.95 and _is_encodable(text, "gb2312")


def _is_traditional(text: str) -> bool:
    """In Big5's first level, the 5,401 characters in common use."""
    if _share(text, "CJK UNIFIED") < 0.95 or not _is_encodable(text, "big5"):
        return False
    return all(c.isascii() or c.encode("big5")[0] <= 0xC6 for c in text)


def _is_japanese(text: str) -> bool:
    kana = _share(text, "HIRAGANA", "KATAKANA")
    return kana >= 0.1 and kana + _share(text, "CJK UNIFIED") >= 0.95


def _is_korean(text: str) -> bool:
    """In the 2,350 syllables of KS X 1001; Python spells the others out in eight bytes."""
    if _share(text, "HANGUL SYLLABLE") < 0.95 or not _is_encodable(text, "euc_kr"):
        return False
    return all(len(c.encode("euc_kr")) <= 2 for c in text)


_CYRILLIC = _Script(_alphabet("CYRILLIC"), "оеаинтсрвлкмдпу")
_SCRIPTS = {
    "cp1252": _Script(_is_latin, "éèàçêëñäöüßôîïâûùíóáúìòåæøãõ"),
    "cp1250": _Script(_is_latin, "ěščřžýáíéůúóťďňąęłńśźżćőűöüäôľ"),
    "cp1254": _Script(_is_latin, "ğışçöüİâî"),
    "cp949": _Script(_is_korean),
    "gb18030": _Script(_is_simplified),
    "big5": _Script(_is_traditional),
    "cp932": _Script(_is_japanese),
    "euc_jp": _Script(_is_japanese),
    "cp1251": _CYRILLIC,
    "koi8_r": _CYRILLIC,
    "cp1253": _Script(_alphabet("GREEK"), "αοιετσηνρςκπυλμ"),
    "cp1255": _Script(_alphabet("HEBREW"), "יוהלארתבמשנעד"),
    "cp1256": _Script(_alphabet("ARABIC"), "اليمنوترةعبكد"),
}
"""Encodings that captions come in, and the text that is written in each; the first is preferred at a tie."""
_LATIN = ("cp1252", "cp1250", "cp1254")
