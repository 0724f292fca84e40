"""Tars that somebody else wrote: read to their end, or said where they cannot be read on.

Python's reader takes a damaged header for the end of the archive, so that what follows is lost without a word; it keeps
a name of any length in memory, and goes on to a place that lies behind the end of a stream.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol, Self, cast

_LONGEST_HEADER = 1 << 20
"""Bytes of a long name, or of the fields of PAX."""
_EXTENDED = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)
_LONGEST_RECORD = 1 << 20
"""Bytes: tars are filled up to a whole record, of 10 KiB as they are commonly written."""
_EMPTY_READS = 8
"""After so many a stream has ended where the tar says that there is more."""


class Header(tarfile.TarInfo):
    """A member's header. Where it is damaged tarfile.ReadError is raised, and not the archive taken to end there."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        at = tarfile_.offset
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError, OverflowError) as error:  # ValueError: a number that is none
            raise tarfile.ReadError(f"the header at byte {at:,} is damaged ({error})") from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """What Python calls once it knows a header's kind, before it reads what belongs to it."""
        if self.size < 0:
            raise tarfile.ReadError("a size below zero")
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        read: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return read

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file; make the tar without --sparse")


class Readable(Protocol):
    """What a packed tar comes from."""

    def read(self, size: int = -1, /) -> bytes: ...


@contextmanager
def unpacking(stream: Readable) -> Iterator[tarfile.TarFile]:
    """The tar in a gzip stream, member by member, in memory that does not grow with what its headers claim.

    Once all is read, raises gzip.BadGzipFile where the stream's checksum is not that of what it held, and
    tarfile.ReadError where more lies behind the tar than fills its last record.
    """
    with (
        gzip.GzipFile(fileobj=cast(IO[bytes], stream), mode="rb") as unpacked,
        tarfile.open(fileobj=_Ending(cast(IO[bytes], unpacked)), mode="r|", tarinfo=Header) as tar,  # type: ignore[call-overload]
    ):
        yield tar
        if len(unpacked.read(_LONGEST_RECORD)) == _LONGEST_RECORD or unpacked.read(1):
            raise tarfile.ReadError("it goes on behind its end")


class _Ending:
    """A stream that says so when it is read on behind its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._empty = stream, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._empty += not data
        if self._empty > _EMPTY_READS:
            raise EOFError("it ends in the middle of a member")
        return data
