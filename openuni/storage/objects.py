"""A bucket: S3, GCS or Azure, through `obstore`. Nothing is renamed and nothing is changed in place.

What two writers may race for is put with `create_only`: the store refuses the second. All errors of the store are one
sentence: whose bucket, what it said, what to do.
"""

from __future__ import annotations

import logging
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.storage import credentials
from openuni.storage.base import check_name

_log = logging.getLogger(__name__)

SCHEMES = frozenset({"s3", "gs", "az"})
RETRY_SECONDS = 180.0
"""How long a store that answers 503, or not at all, is asked again."""
_RETRY_WAITS = (0.2, 10.0)
"""Seconds between two requests: at first, and at most."""
_RETRIES = 10_000
"""More than fit into the time: the library's own ten are over in two seconds."""
_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 900
"""How long one request may take, with all its bytes: a tar of 5 GiB at 6 MiB a second."""
_ATTEMPTS = 5
"""Puts of one file whose connection breaks; the library tries again only what it knows not to have been done."""
_MOST_AT_ONCE = 5 << 30
"""Bytes of one put: only a put at once can be told to create and never to overwrite."""
_IN_PARTS = 64 << 20
"""A larger file that may be overwritten is put in parts, which takes little memory."""
_PART, _MOST_PARTS = 16 << 20, 9_000


def is_object_url(text: str) -> bool:
    """Whether `text` names a place in an object store.

    Example:
        >>> is_object_url("s3://bucket/data"), is_object_url("data/mine")
        (True, False)
    """
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme in SCHEMES


class ObjectStore:
    """A `Store` below a URL such as `s3://bucket/prefix`.

    Credentials come from where the cloud's own tools have them (`openuni.storage.credentials`), or from the machine's
    role. Raises PlanError where the URL names no bucket, there are no credentials, or `obstore` is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise PlanError(f"{url} names no bucket: write s3://BUCKET/FOLDER")
        try:
            from obstore.store import from_url
        except ImportError:
            raise PlanError(f"{url} needs obstore; run: pip install 'openuni[cloud]'") from None
        first, longest = (timedelta(seconds=seconds) for seconds in _RETRY_WAITS)
        # A wait is drawn between the first and three times the one before: with twice, they would hardly grow.
        backoff = {"init_backoff": first, "max_backoff": longest, "base": 3}
        patience = timedelta(seconds=RETRY_SECONDS)
        retry: Any = {"max_retries": _RETRIES, "retry_timeout": patience, "backoff": backoff}
        with self._told(""):
            more = credentials.options(parts.scheme)
            server = more.get("endpoint", "")
            if server:
                _say_if_silent(server)
            # Who names a server without TLS means it; a name that says https is never left for one.
            plainly = server.startswith("http://")
            options: Any = {"timeout": timedelta(seconds=_REQUEST_SECONDS), "allow_http": plainly}
            self._store: Any = from_url(self.url, retry_config=retry, client_options=options, **more)

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]  # connections are not sent to other processes

    def where(self, name: str) -> str:
        return f"{self.url}/{name}"

    def size(self, name: str) -> int:
        import obstore

        refused = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)
        with self._told(name):
            try:
                return int(obstore.head(self._store, check_name(name))["size"])
            except refused:
                obstore.get(self._store, name)  # an answer to HEAD has no body: a wrong clock would look like no rights
                raise

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str) -> list[str]:
        import obstore

        with self._told(folder):
            found = obstore.list_with_delimiter(self._store, prefix=check_name(folder) if folder else None)
            return sorted(str(entry["path"]) for entry in found["objects"])

    def walk(self, folder: str = "") -> dict[str, int]:
        """Names of all files below `folder`, however deep, in their order, and their sizes."""
        import obstore

        with self._told(folder):
            found = obstore.list(self._store, prefix=check_name(folder) if folder else None, chunk_size=1000)
            return dict(sorted((str(entry["path"]), int(entry["size"])) for some in found for entry in some))

    def first(self) -> str | None:
        """The name of some file below, however deep, or None where there is none."""
        import obstore

        with self._told(""):
            for some in obstore.list(self._store, chunk_size=1):
                for entry in some:
                    return str(entry["path"])
        return None

    def read(self, name: str, *, at_most: int) -> bytes:
        import obstore

        with self._told(name):
            answer = obstore.get(self._store, check_name(name))
            if answer.meta["size"] > at_most:
                raise CorruptDataError(f"{self.where(name)} has more than {at_most:,} bytes")
            return bytes(answer.bytes())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        import obstore

        if size == 0:
            return b""
        with self._told(name):
            try:
                data = bytes(obstore.get_range(self._store, check_name(name), start=offset, length=size))
            except obstore.exceptions.GenericError as error:
                if "416" not in str(error):
                    raise
                data = b""
        if len(data) != size:
            raise CorruptDataError(f"{self.where(name)} ends before byte {offset + size:,} of its index")
        return data

    def put(self, name: str, data: bytes | Path, run: str, *, create_only: bool = False) -> None:
        """Write a file, whole or not at all; a path is a file to copy. The store says when something is there already.

        A put whose answer was lost is tried again, and with `create_only` may find itself: whoever has to know compares
        what is there.
        """
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if create_only and size > _MOST_AT_ONCE:
            raise PlanError(
                f"{self.where(name)} would have {size:,} bytes, more than one put takes; use smaller shards"
            )
        with self._told(name):
            self._put(check_name(name), data, "create" if create_only else "overwrite", size)

    def _put(self, name: str, data: bytes | Path, mode: Any, size: int) -> None:
        import obstore

        in_parts = mode == "overwrite" and size > _IN_PARTS
        part = max(_PART, size // _MOST_PARTS)
        end = time.monotonic() + RETRY_SECONDS
        for attempt in range(_ATTEMPTS):
            try:
                obstore.put(self._store, name, data, mode=mode, use_multipart=in_parts, chunk_size=part)
                return
            except obstore.exceptions.GenericError as error:
                if "error sending request" not in str(error) or attempt == _ATTEMPTS - 1 or time.monotonic() > end:
                    raise
            time.sleep(0.1 * 4**attempt)

    @contextmanager
    def create(self, name: str, run: str, *, create_only: bool = False) -> Iterator[BinaryIO]:
        with tempfile.TemporaryDirectory(prefix="openuni-put-") as folder:
            path = Path(folder) / "file"
            with path.open("wb") as file:
                yield file
            self.put(name, path, run, create_only=create_only)

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to `path`, a piece at a time."""
        import obstore

        with self._told(name), path.open("wb") as file:
            answer = obstore.get(self._store, check_name(name))
            size = answer.meta["size"]
            if size <= _IN_PARTS:
                for piece in answer.stream():
                    file.write(piece)
                return
            # One request for all of it could outlast its time, and begins anew where the connection breaks.
            for start in range(0, size, _IN_PARTS):
                length = min(_IN_PARTS, size - start)
                file.write(obstore.get_range(self._store, name, start=start, length=length))

    def swap(self, name: str, before: bytes, data: bytes) -> bool:
        """Replace a file that has the bytes `before`; False where it has others by now. Nobody can come in between.

        A put whose answer was lost is tried again and may then find itself: the caller looks at what is there.
        """
        import obstore

        with self._told(name):
            answer = obstore.get(self._store, check_name(name))
            known = {key: answer.meta[key] for key in ("e_tag", "version") if answer.meta[key] is not None}
            if bytes(answer.bytes()) != before:
                return False
            try:
                self._put(name, data, known, len(data))
            except obstore.exceptions.PreconditionError:
                return False
        return True

    def delete(self, name: str) -> None:
        import obstore

        with self._told(name):
            try:
                obstore.delete(self._store, check_name(name))
            except FileNotFoundError:
                return

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove files, those that are there, in few requests."""
        import obstore

        with self._told(""):
            obstore.delete(self._store, [check_name(name) for name in names])

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What the store said as an error of ours, or as a missing or present file."""
        from obstore import exceptions

        where, bucket = self.where(name), urlsplit(self.url).netloc
        try:
            yield
        except exceptions.AlreadyExistsError:
            raise FileExistsError(f"{where} is there already") from None
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise PlanError(f"there is no bucket {bucket}; make it, or correct {self.url}") from None
            raise FileNotFoundError(f"{where} is missing") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            if "RequestTimeTooSkewed" in str(error):
                raise PlanError(f"{where} is refused: this machine's clock is wrong; set it, and run again") from None
            raise PlanError(f"{where} is refused to these credentials ({_brief(error)}); ask for the rights") from None
        except (exceptions.NotSupportedError, NotImplementedError) as error:
            raise PlanError(f"{where}: the store cannot do what is asked ({_brief(error)})") from None
        except (exceptions.BaseError, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # a file on this machine
            if "NoSuchBucket" in str(error):
                raise PlanError(f"there is no bucket {bucket}; make it, or correct {self.url}") from None
            if any(said in str(error) for said in credentials.NONE_FOUND):
                raise credentials.none_found(urlsplit(self.url).scheme) from None
            raise OpenUniError(
                f"{where} cannot be reached ({_brief(error)}); nothing is half written: run the same command again"
            ) from None


@cache
def _say_if_silent(server: str) -> None:
    """A wrong address is asked as long as a server that is down for a moment: whoever waits is told for what."""
    parts = urlsplit(server)
    try:
        place = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
        socket.create_connection(place, _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        _log.warning(
            "%s does not answer (%s); it is asked again for up to %g seconds; if that is wrong, stop and correct it",
            server,
            error,
            RETRY_SECONDS,
        )


def _brief(error: BaseException) -> str:
    """What the store calls it, or the first line; its own answers go on for pages."""
    if match := re.search(r"status code: ([0-9]{3}).*?<Code>(\w+)</Code>", str(error), re.DOTALL):
        return f"{match[1]} {match[2]}"
    if match := re.search(r"status code: ([0-9]{3}[\w ]*): *$", str(error), re.MULTILINE):
        return match[1]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
