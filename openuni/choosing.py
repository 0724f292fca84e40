"""Choosing rows of a table by SQL: conditions, quantiles, a seeded sample, balance; and the funnel of what each left.

    with Rows("read_parquet('rows.parquet')", "key") as rows:
        rows.where("motion > .1")
        rows.where("sharpness > quantile_cont(sharpness, .5) over ()")
        rows.sample(10_000, seed=0)
        rows.funnel, rows.keys()

DuckDB does the work, in bounded memory. A condition with `over (…)` is a window over the rows that are left at that
step, so a quantile is one of what has passed so far. The same rows, seed and number always give the same sample,
whatever the version of DuckDB: rows are drawn in the order of an MD5 of seed and id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from openuni.errors import PlanError

MEMORY = "1GiB"
"""What DuckDB may take; sorting and grouping go through the disk beyond it."""

_IN_CSV = re.compile(r"\n([^\n]+)\nPossible [Ss]olution")
"""What DuckDB says of a CSV file, after the row's own text."""
_NO_COLUMN = re.compile(r'Referenced column "(.+?)" (?:was )?not found')


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the funnel: what it asks, and the rows that are left after it."""

    what: str
    left: int


def condition(where: str) -> str:
    """The clause for a condition: QUALIFY takes windows too, so that quantiles can be thresholds.

    Example:
        >>> condition("a > 1")
        'WHERE (a > 1)'
        >>> condition("a > quantile_cont(a, .9) over ()")
        'QUALIFY (a > quantile_cont(a, .9) over ())'
    """
    return f"{'QUALIFY' if 'over (' in where.lower() or 'over(' in where.lower() else 'WHERE'} ({where})"


def draw(identity: str, seed: int) -> str:
    """An SQL expression by whose order rows are drawn: even over all ids, another order for another seed."""
    return f"md5(concat_ws('/', {int(seed)}, {identity}))"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def in_words(error: Exception) -> str:
    """What DuckDB says, without the name of its own part that says so.

    Example:
        >>> in_words(ValueError('Binder Error: Referenced column "motoin" not found in FROM clause!\\nCandidates: …'))
        "there is no 'motoin'"
    """
    first = str(error).split("\n", 1)[0]
    if in_csv := _IN_CSV.search(str(error)):
        return in_csv[1].rstrip(".")
    absent = _NO_COLUMN.search(first)
    return f"there is no {absent[1]!r}" if absent else first.partition(" Error: ")[2] or first


class Rows:
    """Rows of an SQL relation that has a text column `identity`, narrowed step by step.

    `number` names a column that numbers the rows, where there is one: it is faster to remember than an identity.
    `hidden` are columns that no message names.
    """

    def __init__(self, relation: str, identity: str, number: str = "", hidden: Collection[str] = ()) -> None:
        """Raises PlanError where DuckDB is not installed or the relation cannot be read."""
        try:
            import duckdb
        except ImportError:
            raise PlanError("choosing by SQL needs duckdb; run: pip install 'openuni[build]'") from None
        self._error = duckdb.Error
        self._database = duckdb.connect()
        self._database.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 2; SET preserve_insertion_order = false")
        self._identity, self._row = quoted(identity), quoted(number or identity)
        self._steps, self._hidden = 0, {*hidden, number}
        self.funnel: list[Step] = []
        self._run(f"CREATE TEMP VIEW everything AS SELECT * FROM {relation}")
        self._run(f"CREATE TEMP TABLE left_0 AS SELECT {self._row} AS chosen FROM everything")
        self._note("all")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    @property
    def columns(self) -> list[str]:
        """What a condition can speak of."""
        return [row[0] for row in self._database.execute("DESCRIBE everything").fetchall()]

    def where(self, rule: str, words: str = "") -> None:
        """Keep the rows for which an SQL condition is true. Raises PlanError where it cannot be evaluated."""
        self._narrow(f"SELECT {self._row} AS chosen FROM ({self._left}) {condition(rule)}", words or rule)

    def keep(self, keys: Sequence[str] | pa.ChunkedArray, words: str, *, inside: bool = True) -> None:
        """Keep the rows whose identity is (or, not `inside`, is not) among `keys`."""
        listed = pa.table({"listed": pa.array(keys, pa.string()) if isinstance(keys, Sequence) else keys})
        self._database.register("listed_keys", listed)
        kind = "SEMI" if inside else "ANTI"
        try:
            left = f"SELECT {self._row} AS chosen, {self._identity} AS named FROM ({self._left})"
            self._narrow(f"SELECT chosen FROM ({left}) {kind} JOIN listed_keys ON named = listed", words)
        finally:
            self._database.unregister("listed_keys")

    def sample(self, number: int, seed: int) -> None:
        """Keep a seeded choice of `number` rows."""
        order = draw(self._identity, seed)
        self._narrow(f"SELECT {self._row} AS chosen FROM ({self._left}) ORDER BY {order} LIMIT {int(number)}", "sample")

    def balance(self, bucket: str, number: int | None, seed: int) -> None:
        """Keep equally many rows of each value of an SQL expression: as many as the smallest bucket has.

        With a `number`, so many rows, as evenly as the buckets allow. Rows without a value are left out.
        """
        order = draw(self._identity, seed)
        inner = f"SELECT {self._row} AS chosen, {order} AS place, ({bucket}) AS bucket FROM ({self._left})"
        ranked = (
            "SELECT chosen, place, row_number() OVER (PARTITION BY bucket ORDER BY place) AS rank "
            f"FROM ({inner}) WHERE bucket IS NOT NULL"
        )
        if number is None:
            sizes = f"SELECT count(*) AS size FROM ({inner}) WHERE bucket IS NOT NULL GROUP BY bucket"
            chosen = f"SELECT chosen FROM ({ranked}) WHERE rank <= (SELECT min(size) FROM ({sizes}))"
        else:
            chosen = f"SELECT chosen FROM ({ranked}) ORDER BY rank, place LIMIT {int(number)}"
        self._narrow(chosen, f"balance over {bucket}")

    def keys(self) -> list[str]:
        """The identities that are left, sorted."""
        found = self._table(f"SELECT {self._identity} AS named FROM ({self._left}) ORDER BY named")
        named: list[str] = found["named"].to_pylist()
        return named

    def fetch(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows that are left, in the order of their identities."""
        named = ", ".join(map(quoted, columns))
        return self._table(f"SELECT {named} FROM ({self._left}) ORDER BY {self._identity}")

    @property
    def _last(self) -> str:
        return f"left_{self._steps}"

    @property
    def _left(self) -> str:
        return f"SELECT everything.* FROM everything SEMI JOIN {self._last} ON everything.{self._row} = chosen"

    def _narrow(self, query: str, words: str) -> None:
        before = self._last
        self._run(f"CREATE TEMP TABLE left_{self._steps + 1} AS {query}")
        self._steps += 1
        self._run(f"DROP TABLE {before}")
        self._note(words)

    def _note(self, words: str) -> None:
        self.funnel.append(Step(words, int(self._run(f"SELECT count(*) FROM {self._last}").fetchall()[0][0])))

    def _run(self, query: str) -> Any:
        return self._said(self._database.execute, query)

    def _table(self, query: str) -> pa.Table:
        return self._said(lambda text: self._database.sql(text).to_arrow_table(), query)

    def _said(self, ask: Callable[[str], Any], query: str) -> Any:
        """What DuckDB answers; its errors in one sentence."""
        try:
            return ask(query)
        except self._error as error:
            known = [name for name in self.columns if name not in self._hidden] if self.funnel else ["nothing yet"]
            raise PlanError(f"{in_words(error)}; known: {', '.join(known)}") from error
