"""A video inside a tar, read where it lies: nothing is unpacked.

Its path is `<tar>/@<offset>+<size>/<name>`: the bytes of the member in the tar, and its name there for people.
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

_PATH = re.compile(r"(?P<tar>.+\.tar)/@(?P<offset>[0-9]{1,18})\+(?P<size>[0-9]{1,18})/.+", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular member of an uncompressed tar, in bytes."""

    tar: Path
    offset: int
    size: int

    def path(self, name: str) -> str:
        """How a clip names it.

        Example:
            >>> Member(Path("00000.tar"), 512, 4286).path("000000012.mp4")
            '00000.tar/@512+4286/000000012.mp4'
        """
        return f"{self.tar.as_posix()}/@{self.offset}+{self.size}/{name}"

    def is_there(self) -> bool:
        """Whether the tar has a member of this size at this place."""
        if self.offset < tarfile.BLOCKSIZE or self.offset + self.size > self.tar.stat().st_size:
            return False
        with self.tar.open("rb") as file:
            file.seek(self.offset - tarfile.BLOCKSIZE)
            try:
                header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            except tarfile.TarError:
                return False
        return header.isreg() and header.size == self.size


def find(path: Path) -> Member | None:
    """The member that a path names; None for the path of a file.

    Example:
        >>> find(Path("videos/a.mp4")) is None
        True
    """
    match = _PATH.fullmatch(str(path))
    if match is None or not Path(match["tar"]).is_file():
        return None
    return Member(Path(match["tar"]), int(match["offset"]), int(match["size"]))


class MemberFile(io.RawIOBase):
    """The bytes of a member as a file of its own. Close it."""

    def __init__(self, member: Member) -> None:
        self._file = member.tar.open("rb", buffering=0)
        self._begin, self._size, self._place = member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._place)
        self._file.seek(self._begin + self._place)
        data = self._file.read(left if size is None or size < 0 else min(size, left)) or b""
        self._place += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
