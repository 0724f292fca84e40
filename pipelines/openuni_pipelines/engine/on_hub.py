"""`openuni push D hf://datasets/OWNER/NAME`: a dataset to the hub, its files named as in its folder.

Data files go in commits of bounded size; `dataset.json`, plan and catalog in the last one, so nothing can be opened
before all of it is there. What the hub has, known by its hash, is not put again: after an interruption the same command
resumes. Facts get their catalog's hash into their name, as in a bucket; the hub's viewer shows them.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openuni
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import catalog, facts, layout, plan, takedown
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.storage import DOCUMENT, MARKER, LocalStore, open_regular
from openuni_pipelines.engine import card, croissant
from openuni_pipelines.engine.run import holding

SCHEME = "hf://"
FEWER_FILES, FEWER_ENTRIES = 100_000, 10_000
"""The hub wants fewer files in a repository, and fewer entries in a folder."""
_FILES_AT_ONCE, _BYTES_AT_ONCE = 300, 8 << 30
"""The most that one commit takes; a single column may be larger."""
_ATTEMPTS = 4
_WAIT = 2.0
"""Seconds before a commit is tried again, then twice as long."""
_URL = re.compile(r"hf://datasets/([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)/?")
_DATA = ("shards/", "index/", f"{layout.COMMITS}/")
_DESCRIBING = (layout.FAILURES, takedown.FILE, croissant.FILE)
_FACTS = re.compile(r"facts\.[0-9a-f]{16}\.parquet")
_TEXT = b"Written by openuni: its commands put files of theirs into this repository.\n"

Place = tuple[int, str]


def is_hub_url(url: str) -> bool:
    """Whether a URL names the hub."""
    return url.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class Repository:
    """A dataset repository of the hub, as `HF_ENDPOINT` and `HF_TOKEN` reach it, and the files it has by their hash."""

    name: str
    api: Any
    files: Mapping[str, str]
    """SHA-256 of a large file, the hash of git of a small one."""

    def has(self, name: str, path: Path, known: FileRecord | None = None) -> bool:
        """Whether the repository has the file at `path` (`known`: what that is) under this name."""
        there = self.files.get(name)
        if there is None:
            return False
        if len(there) == 64:
            return there == (known or layout.file_record(path)).sha256
        with open_regular(path) as file:
            return there == hashlib.sha1(b"blob %d\0" % file.size + file.read()).hexdigest()

    def commit(self, files: Mapping[str, Path | bytes], gone: Sequence[str], message: str) -> None:
        """Put and delete files in one commit, again where the hub or the connection fails. Raises OpenUniError."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        for attempt in range(1, _ATTEMPTS + 1):
            operations: list[Any] = [CommitOperationDelete(name) for name in gone]
            operations += [
                CommitOperationAdd(name, data if isinstance(data, bytes) else str(data)) for name, data in files.items()
            ]
            try:
                self.api.create_commit(self.name, operations, commit_message=message, repo_type="dataset")
                return
            except Exception as error:
                if attempt == _ATTEMPTS or not _is_passing(error):
                    raise _told(self.name, error) from error
            time.sleep(_WAIT * 2 ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class Put:
    """What is to be put: columns of shards, and the files that describe the dataset. `data` has all of its columns."""

    data: Mapping[Place, Mapping[str, FileRecord | None]]
    work: Sequence[Place]
    gone: Sequence[str]


def push(
    root: Path,
    url: str,
    manifest: Manifest,
    records: Mapping[Place, CommitRecord],
    *,
    dry_run: bool,
    progress: Callable[[int, int], None],
) -> Sequence[Place]:
    """Put the complete dataset at `root` into the repository at `url`; returns the columns that were put.

    Raises PlanError where the hub would refuse so many files or the repository has something else, CorruptDataError
    where a file is not what its commit record says, OpenUniError where the hub cannot be reached.
    """
    name = repository_of(url)
    naming = layout.naming(manifest)
    data = {place: _files(record, naming) for place, record in records.items()}
    check_counts(root, manifest, [file for files in data.values() for file in files])
    there = _open(name)
    _check_same(there, manifest)
    work = [place for place, files in data.items() if not all(there.has(n, root / n, f) for n, f in files.items())]
    if dry_run:
        return work
    with holding(root) as run, tempfile.TemporaryDirectory(prefix="openuni-push-") as scratch:
        if not (root / catalog.TABLE).is_file():  # rendered and imported truth has none
            catalog.write(root, run)
        described = _describing(root, manifest, Path(scratch), f"{there.api.endpoint}/datasets/{name}")
        _create(there)
        due = {file: path for file, path in described.items() if not there.has(file, path)}
        wanted = {file for files in data.values() for file in files} | described.keys()
        gone = [file for file in there.files if file not in wanted and _is_ours(file)]
        if work or due or gone or layout.CARD not in there.files:
            data_card = card.render(openuni.open(str(root)), is_on_hub=True).encode()
            there.commit({MARKER: _TEXT, layout.CARD: data_card}, [], "Data card")
        done = 0
        for together in _batches(work, records):
            for place in together:
                _check(root, data[place])
            names = [file for place in together for file in data[place]]
            there.commit({file: root / file for file in names}, [], f"{len(together)} columns of shards")
            done += len(together)
            progress(done, len(work))
        if due or gone:
            there.commit(due, gone, f"{manifest.clips} clips in {manifest.shards} shards")
    return work


def repository_of(url: str) -> str:
    """The repository that a URL names. Raises PlanError.

    Example:
        >>> repository_of("hf://datasets/me/films")
        'me/films'
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise PlanError(f"{url} is not a dataset repository of the hub: write hf://datasets/OWNER/NAME")
    return match[1]


def check_counts(root: Path, manifest: Manifest, files: Sequence[str]) -> None:
    """Raise PlanError where the hub would not take so many files. Nothing is asked of the hub."""
    folders = Counter(file.rpartition("/")[0] for file in files)
    for folder in [folder for folder in folders if "/" in folder]:
        folders[folder.rpartition("/")[0]] += 1  # a folder is an entry of the one above
    fullest, most = max(folders.items(), key=lambda item: item[1], default=("", 0))
    if len(files) < FEWER_FILES and most < FEWER_ENTRIES:
        return
    what = f"{len(files):,} files" if len(files) >= FEWER_FILES else f"{most:,} files in {fullest}/"
    wants = f"{FEWER_FILES:,} in a repository and {FEWER_ENTRIES:,} in a folder"
    raise PlanError(
        f"{root} has {what}, and the hub wants fewer than {wants}; build it with larger shards "
        f"(--shard-bytes; now {manifest.shards:,} shards in {len(manifest.columns)} columns), or push it to a bucket"
    )


def _open(name: str) -> Repository:
    """The repository, without files where there is none yet."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise OpenUniError("huggingface_hub is not installed; run: pip install 'openuni[build]'") from error
    disable_progress_bars()  # a line a file, also into a log; ours counts the columns
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))
    try:
        found = list(api.list_repo_tree(name, recursive=True, repo_type="dataset"))
    except RepositoryNotFoundError:
        found = []
    except Exception as error:
        raise _told(name, error) from error
    files = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in found if not hasattr(file, "tree_id")}
    return Repository(name, api, files)


def _create(there: Repository) -> None:
    try:
        there.api.create_repo(there.name, repo_type="dataset", exist_ok=True)
    except Exception as error:
        raise _told(there.name, error) from error


def _check_same(there: Repository, manifest: Manifest) -> None:
    """Raise PlanError where the repository has another dataset, or files and nothing that says that they are ours."""
    foreign = sorted(there.files.keys() - {".gitattributes", layout.CARD})
    if foreign and not there.files.keys() & {MARKER, layout.MANIFEST}:
        raise PlanError(
            f"{there.name} is not empty and not openuni's: it holds {foreign[0]}; choose another repository"
        )
    if layout.MANIFEST not in there.files:
        return
    with tempfile.TemporaryDirectory(prefix="openuni-push-") as scratch:
        try:
            there.api.hf_hub_download(there.name, layout.MANIFEST, repo_type="dataset", local_dir=scratch)
        except Exception as error:
            raise _told(there.name, error) from error
        data = LocalStore(Path(scratch)).read(layout.MANIFEST, at_most=DOCUMENT)
    far = layout.parse_checked(Manifest, data, f"{there.name}/{layout.MANIFEST}")
    if plan.unchanging(far) != plan.unchanging(manifest):
        raise PlanError(f"{there.name} holds another dataset; choose another repository")


def _files(record: CommitRecord, naming: str | None) -> dict[str, FileRecord | None]:
    """The files of a column, its commit record last."""
    tar, index = layout.tar_at(record, naming), layout.index_at(record, naming)
    return {tar: record.tar, index: record.index, layout.commit_name(record.shard, record.column, naming): None}


def _describing(root: Path, manifest: Manifest, scratch: Path, url: str) -> dict[str, Path]:
    """What describes the dataset as a whole, `dataset.json` last; `url` is the repository's page."""
    plans = [plan.name_of(number) for number in range(len(plan.generations(manifest)))]
    beside = [plan.skipped_beside(Path(name)).name for name in plans]
    names = [*plans, *beside, layout.FAILURES, takedown.FILE, catalog.TABLE, catalog.HEAD, layout.MANIFEST]
    found = {name: root / name for name in names if (root / name).is_file()}
    data = openuni.open(str(root))
    table = layout.hashed(facts.TABLE, layout.file_record(root / catalog.TABLE).sha256)
    made = {table: scratch / facts.TABLE, croissant.FILE: scratch / croissant.FILE}
    facts.write(data, made[table])
    made[croissant.FILE].write_bytes(croissant.render(data, url, made, table))
    return {**made, **found}


def _is_ours(name: str) -> bool:
    plans = re.fullmatch(r"(plan|skipped)(\.[0-9]{4})?\.parquet", name)
    if {"", ".", ".."} & {*name.split("/")}:  # no such file can be asked for
        return False
    return bool(name.startswith(_DATA) or _FACTS.fullmatch(name) or plans or name in _DESCRIBING)


def _batches(work: Sequence[Place], records: Mapping[Place, CommitRecord]) -> Iterator[list[Place]]:
    """What goes together into a commit."""
    together: list[Place] = []
    size = 0
    for place in work:
        adds = records[place].tar.size + records[place].index.size
        if together and (3 * (len(together) + 1) > _FILES_AT_ONCE or size + adds > _BYTES_AT_ONCE):
            yield together
            together, size = [], 0
        together.append(place)
        size += adds
    if together:
        yield together


def _check(root: Path, files: Mapping[str, FileRecord | None]) -> None:
    for name, file in files.items():
        if file is not None and not layout.is_file(root / name, file):
            raise CorruptDataError(
                f"{root / name} is not what its commit record says; run `openuni verify --repair {root}` first"
            )


def _is_passing(error: Exception) -> bool:
    """Whether it may work when tried again: a server that fails or is busy, a connection that broke."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return bool(status >= 500 or status == 429)
        cause = cause.__cause__
    return True


def _told(name: str, error: Exception) -> OpenUniError:
    cause: BaseException = error
    while cause.__cause__ is not None and not hasattr(cause, "response"):  # what the hub said, or how the line broke
        cause = cause.__cause__
    why = (str(cause).strip() or type(cause).__name__).partition("\n")[0][:300]
    return OpenUniError(
        f"{name} cannot be had from the hub, or written there: {why}; check the network, HF_ENDPOINT and HF_TOKEN "
        "(it must be one that writes), and run the same command again: it resumes"
    )
