"""Captions by their language."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from openuni.errors import PlanError
from openuni.sources import Entry, Request
from openuni.sources.selection import Choice
from openuni.sources.table import Table

CAPTIONS = {
    "en": ("A man in a suit talks in a moving car.", "The camera pans over a city at night while it rains", "A dog."),
    "de": ("Ein Hund läuft über die Wiese.", "Die Kamera zeigt eine Stadt bei Nacht und im Regen"),
    "es": ("Un perro corre por la playa.", "La cámara muestra una ciudad de noche con lluvia"),
    "fr": ("Un chien court sur la plage.", "La caméra montre une ville dans la nuit et les gens qui marchent"),
    "it": ("Un cane corre sulla spiaggia con il suo padrone.", "La macchina è nel garage della casa"),
    "nl": ("Een hond rent over het strand.", "De camera toont een stad in de nacht en het regent"),
    "pt": ("Um cachorro corre na praia com o dono.", "A câmera mostra uma cidade no meio da noite"),
    "ru": ("Собака бежит по пляжу.",),
    "zh": ("一只猫在草地上奔跑", "一个男人在使用iPhone打电话"),
    "ja": ("犬が浜辺を走っている",),
    "ko": ("개가 해변을 달린다",),
    "ar": ("كلب يركض على الشاطئ",),
    "el": ("Ένας σκύλος τρέχει στην παραλία",),
    "he": ("כלב רץ על החוף",),
    "hi": ("एक कुत्ता समुद्र तट पर दौड़ता है",),
    "th": ("สุนัขวิ่งบนชายหาด",),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("languages")
    lines = ["video,caption", "none.mp4,", "number.mp4,1234 !"]
    for language, captions in CAPTIONS.items():
        lines += [f'{language}{n}.mp4,"{caption}"' for n, caption in enumerate(captions)]
    for line in lines[1:]:
        (folder / line.partition(",")[0]).touch()
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "rows.csv"


@pytest.mark.parametrize("language", CAPTIONS)
def test_captions_of_one_language_are_kept(table: Path, language: str) -> None:
    source = Table(choice=Choice(languages=(language,)))
    rows = source.entries(Request(table.parent, table))
    kept = [row.id for row in rows if isinstance(row, Entry)]
    assert kept == [f"{language}{n}" for n in range(len(CAPTIONS[language]))]


def test_a_language_that_cannot_be_told_is_refused(table: Path) -> None:
    with pytest.raises(PlanError, match=r"--languages xx: captions can be told to be in en, de"):
        list(Table(choice=Choice(languages=("en", "xx"))).entries(Request(table.parent, table)))
