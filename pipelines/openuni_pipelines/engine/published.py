"""Makes a dataset of clips whose views are published as videos (films), joined by id.

RGB is read first, and clips get their places in the order in which they come. Then each view is streamed once: each
film is stored at the place of its clip, and a shard is committed when it is full. If films come in RGB's order, only a
shard or two of them are on the disk at a time. Parts are not kept. The clips are listed in an SQLite file beside the
shards, so memory does not grow with their number. A part that was read to its end is not read again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openuni import modalities
from openuni.errors import BadVideoError, InvalidAnnotationError, OpenUniError, PlanError
from openuni.modalities.rgb import Rgb, RgbModality
from openuni.sample import Annotation, Record, Status, make_key, split_of
from openuni.shards import catalog, columns, layout, plan, results, writer
from openuni.shards.results import ColumnNote, Result
from openuni.sources import Skipped, pictures
from openuni.sources.pictures import NotInvertibleError
from openuni.sources.published import COLUMNS, Film, Part, Published
from openuni.storage import LocalStore
from openuni.video import decode_video, probe
from openuni_pipelines.engine.parallel import HERE, Parallel, mapping
from openuni_pipelines.engine.run import holding

FINGERPRINT = "published-1"
PICTURES = "pictures"
"""The folder of films that did not invert: `pictures/000000.skeleton.tar`, each `<key>.skeleton.mp4`."""
STATE = "published.sqlite"
"""State of an unfinished import; deleted at the end."""
NOT_PUBLISHED = "none was published"
_SCRATCH = "films"
_VIEWS = COLUMNS[1:]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: the part that is read, and the films of it that were stored, pictures among them."""

    part: str
    films: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What came out: clips, values and pictures by view, and how many films or clips were left out, by reason."""

    clips: int
    values: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def import_published(
    source: Published,
    name: str,
    out: Path,
    parallel: Parallel = HERE,
    *,
    shard_size: int = 128,
    progress: Callable[[Progress], None] = lambda news: None,
) -> Imported:
    """Import everything in `source` into the dataset `out`; call it again to resume.

    Raises PlanError if `out` is a finished dataset or there is no clip, AssetError if a part cannot be read.
    """
    with holding(out, [PICTURES]) as run:
        if (out / layout.MANIFEST).exists():
            raise PlanError(f"{out} holds a dataset already; choose another --out or delete it")
        with closing(_State(out / STATE, shard_size)) as state:
            importer = _Import(out.absolute(), run, name, source.license, state, shard_size, parallel, progress)
            parts = source.parts()
            if not state.is_done("captions"):
                state.keep_captions(source.captions())
            importer.read_rgb([part for part in parts if part.column == "rgb"])
            if not state.count():
                raise PlanError(f"{name} has no clip that can be read: {_said(state.left_out()) or 'it is empty'}")
            views = [view for view in _VIEWS if any(part.column == view for part in parts)]
            for view in views:
                importer.read_view(view, [part for part in parts if part.column == view])
            made = Imported(state.count(), *importer.told(views), left_out=state.left_out())
            plan.write_skipped(out / layout.PLAN, state.all_left_out(), run)
            prints = dict.fromkeys(("rgb", *views), FINGERPRINT)
            shards = -(-made.clips // shard_size)
            writer.write_manifest(out, {"source": f"published {name}"}, prints, made.clips, shards, run)
            catalog.write(out, run)
        state.remove()
    return made


def _said(reasons: Counter[str]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(5))


@dataclass(frozen=True, slots=True)
class _Place:
    """A clip that is stored: its number, its key, and its size."""

    number: int
    key: str
    frames: int
    height: int
    width: int


class _State:
    """What is known between runs: clips by id, parts that are done, captions, what was left out."""

    def __init__(self, path: Path, shard_size: int) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                "CREATE TABLE IF NOT EXISTS done (name TEXT PRIMARY KEY);"
                "CREATE TABLE IF NOT EXISTS captions (id TEXT PRIMARY KEY, caption TEXT) WITHOUT ROWID;"
                "CREATE TABLE IF NOT EXISTS left_out (id TEXT, reason TEXT, PRIMARY KEY (id, reason)) WITHOUT ROWID;"
                "CREATE TABLE IF NOT EXISTS clips (number INTEGER PRIMARY KEY, id TEXT UNIQUE, key TEXT,"
                " frames INTEGER, height INTEGER, width INTEGER);"
            )
        except sqlite3.DatabaseError as error:
            raise PlanError(f"{path} is damaged ({error}); delete {path.parent} and import again") from error
        if not self.is_done(f"shards of {shard_size}"):
            if self.count():
                raise PlanError(f"{path.parent} was begun with another --shard-size; give the same one again")
            self.finish(f"shards of {shard_size}")

    def close(self) -> None:
        self._database.close()

    def remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def is_done(self, name: str) -> bool:
        return self._one("SELECT 1 FROM done WHERE name = ?", name) is not None

    def finish(self, name: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO done VALUES (?)", (name,))

    def keep_captions(self, captions: Iterable[tuple[str, str]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO captions VALUES (?, ?)", captions)
        self._database.execute("INSERT INTO done VALUES ('captions')")
        self._database.execute("COMMIT")

    def caption(self, id: str) -> str:
        found = self._one("SELECT caption FROM captions WHERE id = ?", id)
        return "" if found is None else str(found[0])

    def count(self) -> int:
        found = self._one("SELECT count(*) FROM clips")
        return 0 if found is None else int(found[0])

    def place(self, id: str) -> _Place | None:
        found = self._one("SELECT number, key, frames, height, width FROM clips WHERE id = ?", id)
        return None if found is None else _Place(*found)

    def add(self, id: str, place: _Place) -> None:
        values = (place.number, id, place.key, place.frames, place.height, place.width)
        self._database.execute("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", values)

    def keys(self, first: int, last: int) -> list[str]:
        found = self._database.execute("SELECT key FROM clips WHERE number >= ? AND number < ?", (first, last))
        return sorted(str(key) for (key,) in found)

    def leave_out(self, row: Skipped) -> None:
        self._database.execute("INSERT OR IGNORE INTO left_out VALUES (?, ?)", (row.id, row.reason))

    def left_out(self) -> Counter[str]:
        return Counter(dict(self._database.execute("SELECT reason, count(*) FROM left_out GROUP BY reason")))

    def all_left_out(self) -> Iterator[Skipped]:
        return (Skipped(*row) for row in self._database.execute("SELECT id, reason FROM left_out ORDER BY 1, 2"))

    def _one(self, query: str, *values: Any) -> Any:
        return self._database.execute(query, values).fetchone()


@dataclass
class _Import:
    out: Path
    run: str
    name: str
    license: str
    state: _State
    shard_size: int
    parallel: Parallel
    progress: Callable[[Progress], None]

    def read_rgb(self, parts: list[Part]) -> None:
        """Store every clip in the order in which they come, and commit their shards."""
        count = self.state.count()
        for shard in range(count // self.shard_size):  # one may have been filled when the run was killed
            self._commit(shard, "rgb")
        for part, films in self._unread(parts, lambda id: self.state.place(id) is None):
            for id, found in films(_read_clip):
                if isinstance(found, Skipped):
                    self.state.leave_out(found)
                elif self.state.place(id) is not None:
                    self.state.leave_out(Skipped(id, f"two clips of one id in {part.column}"))
                else:
                    self._store(id, count, found)
                    count += 1
                    if count % self.shard_size == 0:
                        self._commit(count // self.shard_size - 1, "rgb")
        if count % self.shard_size:
            self._commit(count // self.shard_size, "rgb")

    def read_view(self, view: str, parts: list[Part]) -> None:
        """Store the films of one view at the places of their clips; a shard is committed as soon as it is full."""
        count = self.state.count()
        shards = -(-count // self.shard_size)
        open_ = {n for n in range(shards) if columns.committed(self.out, n, view) is None}
        waiting = {n: {*self._keys(n)} - self._saved(n, view) for n in sorted(open_)} if len(open_) < shards else {}

        def is_wanted(id: str) -> bool:
            place = self.state.place(id)
            if place is None:
                self.state.leave_out(Skipped(id, f"{view} without a clip in RGB"))
                return False
            shard = place.number // self.shard_size
            return shard in open_ and not results.exists(self.out, shard, place.key, _print(view))

        for _, films in self._unread(parts, is_wanted):
            for id, found in films(_ReadView(self.out, self.run, view, self.shard_size)):
                if isinstance(found, Skipped):
                    self.state.leave_out(found)
                    continue
                place = self.state.place(id)
                assert place is not None
                shard = place.number // self.shard_size
                left = waiting.setdefault(shard, {*self._keys(shard)} - self._saved(shard, view))
                left.discard(place.key)
                if not left:
                    self._commit(shard, view)
                    open_.discard(shard)
                    del waiting[shard]
        for shard in sorted(open_):
            self._commit(shard, view)

    def told(self, views: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
        """Values and pictures by view, from what is committed."""
        values, kept = Counter[str](), Counter[str]()
        for view in views:
            for shard in range(-(-self.state.count() // self.shard_size)):
                rows = columns.rows(self.out, shard, view)
                values[view] += sum(row.status.present for row in rows)
                kept[view] += sum(row.status.reason.startswith(f"kept as a picture in {PICTURES}/") for row in rows)
        return values, kept

    def _unread(
        self, parts: list[Part], is_wanted: Callable[[str], bool]
    ) -> Iterator[tuple[Part, Callable[[Callable[[Any], Any]], Iterator[tuple[str, Any]]]]]:
        """Each part that is not done, with a map over its films; then it is."""
        for part in parts:
            if self.state.is_done(part.name):
                continue
            stored = Counter[str]()

            def films(
                work: Callable[[Any], Any], part: Part = part, stored: Counter[str] = stored
            ) -> Iterator[tuple[str, Any]]:
                with self._scratch() as scratch, mapping(self.parallel.workers, self.parallel.ray_address) as mapped:
                    for id, found in mapped(work, self._tasks(part.films(is_wanted, scratch))):
                        yield id, found
                        stored["pictures" if found is True else "films"] += not isinstance(found, Skipped)
                        self.progress(Progress(part.name, stored.total(), stored["pictures"]))

            yield part, films
            self.state.finish(part.name)

    def _tasks(self, films: Iterable[Film | Skipped]) -> Iterator[_Task]:
        for film in films:
            if isinstance(film, Skipped):
                self.state.leave_out(film)
            else:
                yield _Task(film, self.state.place(film.id))

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        store, folder = LocalStore(self.out), f"{layout.WORK}/{_SCRATCH}"
        store.make_folder(folder)
        try:
            yield self.out / folder
        finally:
            store.delete_folder(folder)

    def _store(self, id: str, number: int, clip: _Clip) -> None:
        key = make_key(f"{number:07d}-{make_key(id)[:56]}")
        encoded = clip.encoded()
        record = Record(
            key, clip.frames, clip.height, clip.width, clip.fps, self.state.caption(id), split=split_of(id),
            source=self.name, source_id=id, video_id=id, license=self.license,
        )  # fmt: skip
        note = ColumnNote(Status(True, expert=FINGERPRINT), encoded.meta, record=record)
        shard = number // self.shard_size
        results.open_work(self.out, shard)
        results.save(self.out, shard, key, _print("rgb"), Result("rgb", note, encoded.members), self.run)
        self.state.add(id, _Place(number, key, clip.frames, clip.height, clip.width))

    def _keys(self, shard: int) -> list[str]:
        return self.state.keys(shard * self.shard_size, (shard + 1) * self.shard_size)

    def _saved(self, shard: int, view: str) -> set[str]:
        return {key for key, fingerprint in results.saved(self.out, shard) if fingerprint == _print(view)}

    def _commit(self, shard: int, column: str) -> None:
        """Commit a column of a shard, after the tar of its pictures; clips without a film lack the view."""
        if columns.committed(self.out, shard, column) is not None:
            return
        keys = self._keys(shard)
        saved = {*results.saved(self.out, shard)}
        if kept := [key for key in keys if (key, _print(column, PICTURES)) in saved]:
            with (
                LocalStore(self.out).create(layout.file_name(PICTURES, shard, column, "tar"), self.run) as file,
                results.open_tar_for_writing(file) as tar,
            ):
                for key in kept:
                    result = results.load(self.out, shard, key, _print(column, PICTURES))
                    for name, data in result.members.items():
                        results.add_member(tar, f"{key}.{name}", data)
        lacking = Result(column, ColumnNote(Status(False, NOT_PUBLISHED, FINGERPRINT)))
        stored = (
            (key, results.load(self.out, shard, key, _print(column)) if (key, _print(column)) in saved else lacking)
            for key in keys
        )
        columns.commit(self.out, shard, column, FINGERPRINT, stored, self.run)
        results.close_work(self.out, shard)


def _print(column: str, kind: str = "") -> str:
    """The name of a result in `work/`."""
    return f"{FINGERPRINT}.{column}{f'.{kind}' if kind else ''}"


@dataclass(frozen=True, slots=True)
class _Task:
    film: Film
    place: _Place | None


@dataclass(frozen=True, slots=True)
class _Clip:
    """What a film of RGB shows, and the bytes that it will be stored as: its own where they are H.264."""

    frames: int
    height: int
    width: int
    fps: float
    mp4: bytes
    meta: dict[str, Any]

    def encoded(self) -> modalities.Encoded:
        return modalities.Encoded({"mp4": self.mp4}, self.meta)


def _read_clip(task: _Task) -> tuple[str, _Clip | Skipped]:
    film = task.film
    try:
        frames, fps = decode_video(film.file)
        codec = probe(film.file).codec
        rgb = Rgb(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2], fps or 16.0)
        data = film.file.read_bytes()
        is_ours = codec == "h264" and film.file.suffix.lower() == ".mp4" and rgb.frames.shape == frames.shape
        encoded = RgbModality().kept(data, rgb) if is_ours else RgbModality().encode(rgb)
        count, height, width, _ = rgb.frames.shape
        return film.id, _Clip(count, height, width, rgb.fps, encoded.members["mp4"], dict(encoded.meta))
    except (BadVideoError, InvalidAnnotationError) as error:
        return film.id, Skipped(film.id, f"unreadable video: {_plain(error, film)}")
    finally:
        _done_with(film)


@dataclass(frozen=True, slots=True)
class _ReadView:
    """Stores a film of one view: as the value that it shows, or as a picture. True where it is a picture."""

    out: Path
    run: str
    view: str
    shard_size: int

    def __call__(self, task: _Task) -> tuple[str, bool | Skipped]:
        film, place = task.film, task.place
        assert place is not None
        try:
            frames, _ = decode_video(film.file)
            data = film.file.read_bytes()
        except BadVideoError as error:
            return film.id, Skipped(film.id, f"unreadable {self.view}: {_plain(error, film)}")
        finally:
            _done_with(film)
        shard = place.number // self.shard_size
        results.open_work(self.out, shard)
        try:
            if self.view != "flow" and len(frames) != place.frames:
                raise NotInvertibleError(f"it has {len(frames)} frames, the clip {place.frames}")
            rgb = self._rgb(shard, place.key).frames if self.view == "flow" else frames
            found = pictures.invert(self.view, frames, rgb)
        except NotInvertibleError as error:
            where = layout.file_name(PICTURES, shard, self.view, "tar")
            status = Status(False, f"kept as a picture in {where}: {error}", FINGERPRINT)
            kept = Result(self.view, ColumnNote(status), {f"{self.view}{film.file.suffix.lower()}": data})
            results.save(self.out, shard, place.key, _print(self.view, PICTURES), kept, self.run)
            results.save(self.out, shard, place.key, _print(self.view), Result(self.view, ColumnNote(status)), self.run)
            return film.id, True
        modality = modalities.get(self.view)
        value = found.value
        if modality.shape(value) != (place.frames, place.height, place.width):
            value = modality.resize(value, place.height, place.width)
        annotation = Annotation(value, scores={f"{self.view}_residual": found.residual})
        record = Record(place.key, place.frames, place.height, place.width, 1.0)
        made = writer.encode_sample(record, {self.view: annotation}, {self.view: FINGERPRINT})
        results.save(self.out, shard, place.key, _print(self.view), made[self.view], self.run)
        return film.id, False

    def _rgb(self, shard: int, key: str) -> Rgb:
        stored = columns.read(self.out, shard, "rgb", key)
        return RgbModality().decode(stored.encoded)


def _plain(error: OpenUniError, film: Film) -> str:
    return str(error).removeprefix(f"{film.file}: ")


def _done_with(film: Film) -> None:
    if film.is_scratch:
        film.file.unlink(missing_ok=True)
