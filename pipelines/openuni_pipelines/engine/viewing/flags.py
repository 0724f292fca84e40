"""What people say of clips: flags with a reason, one JSON line each, the last word of a clip counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from openuni.errors import CorruptDataError
from openuni.sample import check_key
from openuni.storage import LocalStore

_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Flag:
    """A clip and why it is flagged; an empty reason takes the flag away."""

    key: Annotated[str, Field(max_length=64)]
    reason: Annotated[str, Field(max_length=400)]


_FLAG = TypeAdapter(Flag)


class Flags:
    """A file of flags. It is made with the first flag; a colleague's file is read by naming it.

    Raises CorruptDataError where the file is not one of flags.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = LocalStore(path.parent)
        self._lock = threading.Lock()
        self._flags: dict[str, str] = {}
        for number, line in enumerate(self._lines(), 1):
            try:
                self._take(_FLAG.validate_json(line))
            except ValidationError as error:
                raise CorruptDataError(f"{path}: line {number} is not a flag; repair or remove it") from error

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reason of every clip that is flagged."""
        return dict(self._flags)

    def set(self, key: str, reason: str) -> None:
        """Flag a clip, or with an empty reason take its flag away; written at once."""
        flag = Flag(check_key(key), " ".join(reason.split())[:400])
        with self._lock:
            line = json.dumps(asdict(flag), ensure_ascii=False) + "\n"
            with self._store.append(self.path.name) as file:
                file.write(line.encode())
            self._take(flag)

    def _take(self, flag: Flag) -> None:
        self._flags.pop(flag.key, None)
        if flag.reason:
            self._flags[flag.key] = flag.reason

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self._store.read(self.path.name, at_most=_MOST_BYTES).splitlines() if line]
        except FileNotFoundError:
            return []
