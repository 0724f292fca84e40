"""A folder on a file system. Nothing below it is written, emptied or deleted through a link; reads follow links.

Writing opens each folder on the way by itself, relative to the one before and refusing links, so that no link that is
there or comes to be there in between is passed. A dataset whose `shards` its owner has linked to another disk opens
for reading as it is; to write there too, `follow_links` says that the links are one's own.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from openuni.errors import CorruptDataError, PlanError
from openuni.storage.base import check_name
from openuni.storage.full import TEMPORARY, naming

FOLLOW_LINKS = "OPENUNI_FOLLOW_LINKS"
"""Set to 1, links below a dataset are written through: worker processes inherit it, as they do no argument."""

MARKER = ".openuni"
"""The file that says that a folder is ours, from before its first other file until a dataset's manifest does so too."""
MANIFEST = "dataset.json"
MARKS = (MARKER, MANIFEST)
_DEEP = 4
"""How far below its root a file of ours may lie."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITER = ".writer"
"""In a temporary folder, the file that is locked: NFS locks only what is open for writing, which no folder can be."""


class RegularFile(io.BufferedReader):
    """A regular file to read, whose size is known. No `read` takes memory for bytes that are not there."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "rb"))
        self.size = os.fstat(descriptor).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def open_regular(path: Path) -> RegularFile:
    """Open `path` to read it. Raises CorruptDataError where it is a pipe, a device, a folder: it is not opened then."""
    try:
        mode = path.stat().st_mode
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "it is missing", str(path)) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptDataError(f"{path} is a link to itself") from None
        raise
    if not stat.S_ISREG(mode):
        raise CorruptDataError(_no_file(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced in between
        os.close(descriptor)
        raise CorruptDataError(_no_file(path))
    return RegularFile(descriptor)


class LocalStore:
    """A `Store` on a local or shared folder, which need not be there yet.

    Besides what every store can do: `append` for logs, `make_folder` and `delete_folder` for work in progress, `sweep`
    for what killed runs left. All raise PlanError naming the link or the odd file that they would have to pass.
    """

    def __init__(self, root: Path, *, follow_links: bool | None = None) -> None:
        self.root = root
        self.follow_links = os.environ.get(FOLLOW_LINKS) == "1" if follow_links is None else follow_links

    def path(self, name: str) -> Path:
        return self.root / check_name(name)

    def where(self, name: str) -> str:
        return str(self.root / name)

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def list(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.path(folder)) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise CorruptDataError(f"{self.path(folder)} is a link to itself") from None
            raise

    def open(self, name: str) -> RegularFile:
        return open_regular(self.path(name))

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return file.size

    def read(self, name: str, *, at_most: int) -> bytes:
        with self.open(name) as file:
            if file.size > at_most:
                raise CorruptDataError(f"{self.path(name)} has {file.size:,} bytes, more than such a file ever has")
            return file.read()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self.open(name) as file:
            if offset < 0 or size < 0 or offset + size > file.size:
                raise CorruptDataError(
                    f"{self.path(name)} ends at {file.size:,}, before byte {offset + size:,} of its index; it is cut "
                    "short or damaged: run `openuni verify --repair`"
                )
            file.seek(offset)
            return file.read(size)

    def put(self, name: str, data: bytes, run: str, *, create_only: bool = False) -> None:
        with self.create(name, run, create_only=create_only) as file:
            file.write(data)

    @contextmanager
    def create(self, name: str, run: str, *, create_only: bool = False, scratch: bool = False) -> Iterator[BinaryIO]:
        """As every store's. `scratch`: only into a folder that is there, and a lost file may be lost in a power cut.

        What is not finished lies beside the file, under a name that carries the run's id and one of its own: a worker
        that was given up may still write. It is locked, which says to `sweep` that somebody writes to it. The kernel
        frees the lock of a process that dies.
        """
        *parents, last = check_name(name).split("/")
        with self._folder(parents, make=not scratch) as folder:
            temporary = _temporary_name(last, run)
            with naming(self.path(name)), _locked(temporary, folder) as descriptor:
                try:
                    with open(descriptor, "wb", closefd=False) as file:
                        yield file
                        file.flush()
                        os.fsync(descriptor)
                    if scratch:
                        os.replace(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
                    else:
                        rename(folder, temporary, last, create_only=create_only)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)

    def append(self, name: str) -> BinaryIO:
        """A file to write at the end of, made where it is missing."""
        *parents, last = check_name(name).split("/")
        with self._folder(parents, make=True) as folder:
            descriptor = self._open(last, folder, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(descriptor, "ab")  # noqa: PTH123  the caller closes it

    @contextmanager
    def guard(self, name: str) -> Iterator[bool]:
        """Hold an empty file of that name locked, waiting for it; it goes with the block.

        Gives False where it was taken away meanwhile: who waited has locked a file without a name, and tries again.
        """
        with self._folder((), make=True) as folder:
            descriptor = self._open(name, folder, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_named(descriptor, name, folder):
                    yield False
                    return
                try:
                    yield True
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
            finally:
                os.close(descriptor)

    def touch(self, name: str) -> None:
        """Set a file's time to now; a link's own, not its target's."""
        os.utime(self.path(name), follow_symlinks=False)

    def delete(self, name: str) -> None:
        """A link is removed, not what it points to. The removal is durable."""
        *parents, last = check_name(name).split("/")
        with suppress(FileNotFoundError), self._folder(parents) as folder, naming(self.path(name)):
            os.unlink(last, dir_fd=folder)
            os.fsync(folder)

    def make_folder(self, name: str) -> None:
        with self._folder(check_name(name).split("/"), make=True):
            pass

    def delete_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, as far as it can be removed."""
        *parents, last = check_name(name).split("/")
        with suppress(FileNotFoundError), self._folder(parents) as folder:
            _remove_tree(last, folder)

    def sweep(self, folders: Sequence[str], *, of: str = "") -> None:
        """Remove what was left behind in these folders (`""` is the root) under temporary names of ours (`of`: those
        of that file or folder alone), but for what somebody still writes to; a folder that is a link is let alone.

        Only the holder of the dataset may do this, before its workers begin or after they end: the runs that the files
        are named after are dead, although a worker of theirs may live for seconds, or are its own and lost a worker.
        """
        for name in folders:
            with suppress(FileNotFoundError, PlanError), self._folder(name.split("/") if name else ()) as folder:
                for entry in os.listdir(folder):  # noqa: PTH208  a descriptor
                    is_ours = TEMPORARY.fullmatch(entry) and entry.startswith(f".{of}." if of else ".")
                    if not is_ours or _is_locked(entry, folder):
                        continue
                    if _is_folder(entry, folder):
                        _remove_tree(entry, folder)
                    else:
                        with suppress(FileNotFoundError):
                            os.unlink(entry, dir_fd=folder)

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder, each part opened by itself."""
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, _FOLDER)
        try:
            for number, part in enumerate(parts):
                try:
                    if make:
                        with suppress(FileExistsError):
                            os.mkdir(part, dir_fd=descriptor)
                    inner = os.open(part, _FOLDER | self._no_follow, dir_fd=descriptor)
                except OSError as error:
                    raise _refusal(self.root.joinpath(*parts[: number + 1]), error) from None
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, name: str, folder: int, flags: int) -> int:
        """A regular file to change. A link is refused whoever made it: folders are linked to disks, files are not."""
        path = self.root / name
        try:
            flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o666, dir_fd=folder)
        except OSError as error:
            raise _refusal(path, error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise PlanError(f"{_no_file(path)}; delete it, or choose another folder")
        return descriptor

    @property
    def _no_follow(self) -> int:
        return 0 if self.follow_links else os.O_NOFOLLOW


def rename(folder: int, temporary: str, name: str, *, create_only: bool = False) -> None:
    """Give a finished, synced temporary file its final name, and make that durable."""
    if create_only:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    else:
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def write_atomic(path: Path, data: bytes, run: str, *, sweeps: bool = False) -> None:
    """Write `data`, whole or not at all: `LocalStore(root).put` where only the path is at hand.

    `sweeps`: first remove what killed writers of the same file left, as a run does for all that it writes.
    Links are passed down to the outermost folder of the last few that is ours, and not below it; where none is, the
    user named the folder.
    """
    ours = [folder for folder in list(path.parents)[:_DEEP] if any((folder / mark).exists() for mark in MARKS)]
    root = ours[-1] if ours else path.parent
    store = LocalStore(root)
    if sweeps:
        above = path.parent.relative_to(root).as_posix()
        store.sweep(("" if above == "." else above,), of=path.name)
    store.put(path.relative_to(root).as_posix(), data, run)


@contextmanager
def temporary_file(path: Path, run: str) -> Iterator[Path]:
    """A new empty file beside `path`, for this writer alone, for what writes to a path only; see `LocalStore.create`.

    Between its making and its locking another run's sweep may take it away; the writer then fails as one whose run was
    taken over, for so it is.
    """
    temporary = path.with_name(_temporary_name(path.name, run))
    try:
        with naming(path), _locked(str(temporary)):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: Path, run: str) -> Iterator[Path]:
    """The same as `temporary_file` for a folder: a place to work in."""
    temporary = path.with_name(_temporary_name(path.name, run))
    temporary.mkdir()
    try:
        with _locked(str(temporary / _WRITER)):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_folder(path: Path, run: str) -> Iterator[Path]:
    """A folder to fill, which becomes `path` as a whole and for good when the block ends, and nothing when it raises.

    `path` may be an empty folder, and what a killed writer of it left is removed first. Raises OSError where there is
    something else.
    """
    store = LocalStore(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    store.sweep(("",), of=path.name)
    with naming(path), temporary_folder(path, run) as temporary, naming(path, temporary):
        yield temporary
        (temporary / _WRITER).unlink()
        sync_tree(temporary)
        temporary.rename(path)
        sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Make all files below `folder` durable, and their names. Raises OSError."""
    for inner, _, names in os.walk(folder):
        for name in names:
            with Path(inner, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(inner))


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, synced temporary file to its final name and sync the folder."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames and removals in `folder` so far durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(name: str, folder: int | None = None) -> Iterator[int]:
    """Make a new file and hold it locked."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _temporary_name(name: str, run: str) -> str:
    return f".{name}.{run}.{os.urandom(4).hex()}.tmp"


def _is_locked(entry: str, folder: int) -> bool:
    inside = f"{entry}/{_WRITER}" if _is_folder(entry, folder) else entry
    try:
        handle = os.open(inside, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:  # nothing to lock in it, or nothing that we made
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: an exclusive one needs writing on NFS
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _is_folder(entry: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_tree(name: str, folder: int) -> None:
    """`shutil.rmtree` walks with descriptors and passes no link."""
    shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def _is_named(descriptor: int, name: str, folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _refusal(path: Path, error: OSError) -> Exception:
    """What to raise where a part of a path could not be opened for writing."""
    if path.is_symlink() and error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        target = path.readlink()
        return PlanError(
            f"{path} is a link to {target}, and nothing is written through links; if it is a folder that you "
            f"linked, pass --follow-links (or set {FOLLOW_LINKS}=1), else delete it"
        )
    error.filename = str(path)
    return error


def _no_file(path: Path) -> str:
    return f"{path} is not a regular file"
