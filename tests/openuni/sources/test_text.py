"""Encodings that captions come in: decoded as they were written, or refused, and never with a replacement character."""

from __future__ import annotations

import pytest

from openuni.sources.text import UnknownEncodingError, decode, encoding_of

WRITTEN = [
    ("cp1252", "A café in the ‘morning’"),
    ("cp1252", "El niño corre por la montaña"),
    ("cp1252", "naïve"),
    ("cp1250", "Kočka běží po trávě"),
    ("gb18030", "一只猫在草地上奔跑"),
    ("gb18030", "一个男人在说话。"),
    ("big5", "一隻貓在草地上奔跑"),
    ("cp932", "猫が草の上を走っている"),
    ("euc_jp", "猫が草の上を走っている"),
    ("cp949", "고양이가 풀밭에서 달린다"),
    ("cp1251", "Кошка бежит по траве"),
    ("koi8_r", "Кошка бежит по траве"),
    ("cp1253", "Η γάτα τρέχει στο γρασίδι"),
    ("cp1255", "החתול רץ על הדשא"),
    ("cp1256", "القط يركض على العشب"),
]


@pytest.mark.parametrize(("encoding", "text"), WRITTEN)
def test_what_people_wrote_is_read(encoding: str, text: str) -> None:
    read = decode(text.encode(encoding))
    assert (read.value, read.encoding) == (text, encoding)
    assert read.is_guessed


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_is_no_guess(encoding: str) -> None:
    read = decode("A café, 一只猫, in the morning of the day".encode(encoding))
    assert read.value == "A café, 一只猫, in the morning of the day"
    assert not read.is_guessed


@pytest.mark.parametrize("data", [bytes(range(256)), b"\xff\xd8\xff\xe0\x00\x10JFIF", "犬".encode("euc_jp")])
def test_what_could_be_anything_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownEncodingError, match="save it as UTF-8"):
        decode(data)


def test_a_table_with_one_bad_byte_is_still_utf8() -> None:
    table = ("id,caption\n" + "1,一只猫在草地上奔跑\n" * 50).encode()
    assert encoding_of(table) == "utf-8"
    assert encoding_of(table + b"2,caf\xe9\n") == "utf-8"
    assert encoding_of(table[:-2]) == "utf-8"
    assert encoding_of(table.decode().encode("gbk")) == "gb18030"
    assert encoding_of(table.decode().encode("utf-16")) == "utf-16"
