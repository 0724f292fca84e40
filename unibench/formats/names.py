"""Whose prediction a file is: people name results as the dataset's authors named the clips, not as our import did."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from openuni.sample import Record, make_key


@dataclass(frozen=True, slots=True)
class Match:
    """`keys` maps a prediction's name to the true key that it is of; `ambiguous` names fit several, `unknown` none.
    `remarks` say what else of the predictions does not count."""

    keys: dict[str, str]
    ambiguous: tuple[str, ...]
    unknown: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def joined(self, other: Match) -> Match:
        """Both."""
        return Match(
            self.keys | other.keys,
            tuple(sorted({*self.ambiguous, *other.ambiguous})),
            tuple(sorted({*self.unknown, *other.unknown})),
            self.remarks + other.remarks,
        )


def original_names(record: Record) -> set[str]:
    """What a true clip may be called besides its key: its name in the source with and without the importer's prefix,
    the video it came from, and for numbered pictures (COCO) the number.

    Example:
        >>> r = Record("000007-davis-car-shadow", 5, 8, 8, 24.0, source="davis", source_id="davis-car-shadow")
        >>> sorted(original_names(r))
        ['car-shadow', 'davis-car-shadow']
    """
    names = {record.source_id, record.source_id.partition("-")[2]} if record.source_id else set()
    if re.fullmatch(r"\d{6}-.+", record.key):
        names |= {record.key[7:], record.key[7:].partition("-")[2]}
    if record.video_id != record.key:
        names.add(re.sub(r"\.[A-Za-z0-9]+$", "", record.video_id))
    names |= {str(int(name)) for name in names if re.fullmatch(r"[0-9]+", name)}
    return {make_key(name) for name in names if name} - {record.key}


def match_names(truths: Iterable[Record], names: Iterable[str]) -> Match:
    """Match predictions to truth by key, else by original name where that is the name of one clip alone.

    A prediction that has the true key itself goes before one that has the original name.

    Example:
        >>> r = Record("000000-davis-swan", 5, 8, 8, 24.0, source="davis", source_id="davis-swan")
        >>> match_names([r], ["swan", "goat"])
        Match(keys={'swan': '000000-davis-swan'}, ambiguous=(), unknown=('goat',), remarks=())
    """
    truths = list(truths)
    known = {record.key for record in truths}
    owners: dict[str, list[str]] = {}
    for record in truths:
        for name in original_names(record):
            owners.setdefault(name, []).append(record.key)
    names = sorted(set(names))
    keys = {name: name for name in names if name in known}
    taken = set(keys.values())
    ambiguous: list[str] = []
    unknown: list[str] = []
    for name in names:
        if name in keys:
            continue
        fits = [key for key in owners.get(name, []) if key not in taken]
        if len(fits) == 1 and len(owners[name]) == 1:
            keys[name] = fits[0]
            taken.add(fits[0])
        else:
            (ambiguous if owners.get(name) else unknown).append(name)
    return Match(keys, tuple(ambiguous), tuple(unknown))


def match_numbers(truths: Iterable[Record], numbers: Iterable[str]) -> Match:
    """Match the ids of a `results.json` to truth by the numbers that its source gave its clips (`Record.video_id`);
    where truth was imported without them, by original name.

    Example:
        >>> r = Record("000000-coco-swan", 1, 8, 8, 1.0, source="coco", source_id="coco-swan", video_id="139")
        >>> match_numbers([r], ["139", "140"])
        Match(keys={'139': '000000-coco-swan'}, ambiguous=(), unknown=('140',), remarks=())
    """
    truths = list(truths)
    if any(record.video_id in ("", record.key) for record in truths):
        return match_names(truths, numbers)
    owners: dict[str, list[str]] = {}
    for record in truths:
        owners.setdefault(record.video_id, []).append(record.key)
    numbers = sorted(set(numbers))
    keys = {number: owners[number][0] for number in numbers if len(owners.get(number, ())) == 1}
    ambiguous = tuple(number for number in numbers if len(owners.get(number, ())) > 1)
    return Match(keys, ambiguous, tuple(number for number in numbers if number not in owners))


def _names(record: Record) -> set[str]:
    return {record.key, *original_names(record)}


def match_samples(truths: Iterable[Record], found: Iterable[Record]) -> Match:
    """Match the samples of a predicted dataset to truth by key, else by an original name that is that of one clip
    alone, in the one and in the other.

    Example:
        >>> truth = Record("000000-davis-swan", 5, 8, 8, 24.0, source="davis", source_id="davis-swan")
        >>> mine = Record("000007-mine-swan", 5, 8, 8, 24.0, source="mine", source_id="mine-swan")
        >>> match_samples([truth], [mine]).keys
        {'000007-mine-swan': '000000-davis-swan'}
    """
    truths, found = list(truths), list(found)
    known = {record.key for record in truths}
    names = {record.key: {record.key} if record.key in known else _names(record) for record in found}
    owners: dict[str, set[str]] = {}
    for key, of in names.items():
        for name in of:
            owners.setdefault(name, set()).add(key)
    match = match_names(truths, (name for name, keys in owners.items() if len(keys) == 1))
    fits = {key: {match.keys[name] for name in of if name in match.keys} for key, of in names.items()}
    keys = {key: next(iter(one)) for key, one in fits.items() if len(one) == 1}
    twice = {name for name, keys in owners.items() if len(keys) > 1}
    several = {key for key, of in names.items() if key not in keys and (of & {*match.ambiguous, *twice} or fits[key])}
    unknown = tuple(sorted(set(names) - set(keys) - several))
    return Match(keys, tuple(sorted(several)), unknown)
