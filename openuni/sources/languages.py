"""The language of a caption, told in SQL: by its script, and among Latin ones by the words that are in every sentence.

No model and no library: right for captions of a sentence or more; a title of two names has no language.
"""

from __future__ import annotations

from openuni.choosing import text
from openuni.errors import PlanError

_SCRIPTS = {
    "ar": r"\p{Arabic}",
    "el": r"\p{Greek}",
    "he": r"\p{Hebrew}",
    "hi": r"\p{Devanagari}",
    "ja": r"\p{Hiragana}\p{Katakana}",
    "ko": r"\p{Hangul}",
    "ru": r"\p{Cyrillic}",
    "th": r"\p{Thai}",
    "zh": r"\p{Han}",
}
"""Letters that a language is told by; Chinese is what has Han characters and no kana."""
_WORDS = {
    "en": "the|a|an|and|of|in|is|with|on|to|are|at|while|from|his|her|its|they",
    "de": "der|die|das|ein|eine|einer|einem|einen|und|in|ist|mit|auf|im|zu|den|dem|sich",
    "es": "el|la|los|las|un|una|y|en|es|con|de|del|que|se|por|su",
    "fr": "le|la|les|un|une|et|en|est|avec|de|du|des|dans|sur|qui|au",
    "it": "il|la|lo|gli|un|una|uno|e|in|è|con|di|del|della|che|su|si|nel",
    "pt": "o|a|os|as|um|uma|e|em|é|com|de|do|da|no|na|que|se",
    "nl": "de|het|een|en|in|is|met|op|van|naar|zijn|die|aan",
}
LANGUAGES = (*_WORDS, *_SCRIPTS)
_LATIN = r"\p{Latin}"
_MOST = 0.6
"""Share of the letters that a script must have: names of other scripts stand in many captions."""


def is_in(caption: str, languages: tuple[str, ...]) -> str:
    """SQL that is true where `caption`, itself SQL, is in one of `languages` (ISO 639-1). Raises PlanError.

    Example:
        >>> import duckdb
        >>> asked = is_in("c", ("en", "zh"))
        >>> captions = ["A dog runs along the beach.", "Ein Hund rennt am Strand.", "一只狗在沙滩上", "犬が浜辺を走る"]
        >>> duckdb.execute(f"SELECT list({asked}) FROM (SELECT unnest(?) AS c)", [captions]).fetchall()
        [([True, False, True, False],)]
    """
    if unknown := [name for name in languages if name not in LANGUAGES]:
        raise PlanError(f"--languages {', '.join(unknown)}: captions can be told to be in {', '.join(LANGUAGES)}")
    return f"({' OR '.join(_of(caption, language) for language in languages)})"


def _of(caption: str, language: str) -> str:
    letters = _count(caption, r"\p{L}")
    if language in _WORDS:
        own = _hits(caption, language)
        # Of languages with equally many the first in the table is taken.
        place = list(_WORDS).index(language)
        before = "".join(f" AND {own} > {_hits(caption, other)}" for other in list(_WORDS)[:place])
        behind = "".join(f" AND {own} >= {_hits(caption, other)}" for other in list(_WORDS)[place + 1 :])
        latin = _count(caption, _LATIN)
        return f"({latin} >= {_MOST} * {letters} AND {own} > 0{before}{behind})"
    if language == "ja":
        return f"({_count(caption, _SCRIPTS['ja'] + _SCRIPTS['zh'])} >= {_MOST} * {letters} AND {_kana(caption)})"
    without_kana = f" AND NOT {_kana(caption)}" if language == "zh" else ""
    mine = _count(caption, _SCRIPTS[language])
    return f"({mine} > 0 AND {mine} >= {_MOST} * {letters}{without_kana})"


def _kana(caption: str) -> str:
    kana = text(f"[{_SCRIPTS['ja']}]")
    return f"regexp_matches({caption}, {kana})"


def _count(caption: str, letters: str) -> str:
    return f"length(regexp_replace({caption}, {text(f'[^{letters}]')}, '', 'g'))"


def _hits(caption: str, language: str) -> str:
    """How many of a language's common words there are."""
    pattern = rf"(?:^|[^\p{{L}}])(?:{_WORDS[language]})(?:$|[^\p{{L}}])"
    # Words share the space between them: doubled, each has its own.
    spaced = rf"regexp_replace(lower({caption}), '[^\p{{L}}]+', '  ', 'g')"
    return f"len(regexp_extract_all({spaced}, {text(pattern)}))"
