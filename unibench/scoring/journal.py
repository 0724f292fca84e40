"""The journal of a scored run, by which an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from openuni.errors import OpenUniError
from openuni.storage import LocalStore, naming, open_regular
from unibench.scoring.samples import SampleResult

_RESULT: TypeAdapter[SampleResult] = TypeAdapter(SampleResult)
_MOST = 2 << 30
"""Bytes of the results of a million samples."""


class Journal:
    """`samples.jsonl`: a first line that names the protocol, then a result a line, flushed as it is written."""

    def __init__(self, path: Path, fingerprint: str, *, resume: bool) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._lines: list[bytes] = []
        if resume and path.exists():
            with open_regular(path) as file:
                if file.size > _MOST:
                    raise OpenUniError(f"{path} has {file.size:,} bytes, more than a run has; score without --resume")
                self._lines = file.read().splitlines()
        if self._lines:
            with suppress(ValueError):
                header: Mapping[str, str] = json.loads(self._lines[0])
                if header.get("protocol") == fingerprint:
                    return
            raise OpenUniError(f"{path} belongs to another protocol; score without --resume to start again")

    def __enter__(self) -> Journal:
        self._file = LocalStore(self._path.parent).append(self._path.name)
        if not self._lines:
            self._file.truncate(0)
            self._append(json.dumps({"protocol": self._fingerprint}).encode())
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._path):
            self._file.close()

    def done(self) -> Iterator[SampleResult]:
        """Results of the interrupted run. A line that was cut short ends them, and is cut off."""
        size = len(self._lines[0]) + 1 if self._lines else 0
        for line in self._lines[1:]:
            try:
                result = _RESULT.validate_json(line)
            except ValidationError:
                self._file.truncate(size)
                return
            size += len(line) + 1
            yield result

    def write(self, result: SampleResult) -> None:
        """Append a result."""
        self._append(_RESULT.dump_json(result))

    def _append(self, line: bytes) -> None:
        with naming(self._path):
            self._file.write(line + b"\n")
            self._file.flush()
