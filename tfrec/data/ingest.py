"""Interactions of any source -> one table of DuckDB: positions of users and products, numbers.

The same statements for what is kept in memory and for what is prepared on disk:

    read    typed rows of files (reading.py), of a frame, or drawn at random
    ids     become positions in the catalog
    refine  several rows of a user and product become one; rare users and products go
"""

import bisect
import itertools
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pandas as pd

from tfrec.data import splits
from tfrec.data.forms import identifier
from tfrec.data.interactions import Columns
from tfrec.data.reading import Reading, drop_table
from tfrec.data.settings import DataSettings
from tfrec.data.tables import SIDES, Attributes, complete, unified
from tfrec.errors import TfrecError, UsageError
from tfrec.system.progress import watched

AT_ONCE = 512  # vectors of 2,048 rows, which are fetched together
BLOCKS_AT_ONCE = 16  # to insert them one by one takes half as long again
PAIR = 'part, "user", product'  # what stands once
TYPES = {
    "row": "BIGINT",
    "part": "TINYINT",
    "user": "INTEGER",
    "product": "INTEGER",
    "rating": "FLOAT",
    "timestamp": "BIGINT",
    "weight": "FLOAT",
}

ARRAYS = {
    "row": np.int64,
    "part": np.int8,
    "user": np.int32,
    "product": np.int32,
    "rating": np.float32,
    "timestamp": np.int64,
    "weight": np.float32,
}
MERGED = ("rating", "weight")
HOW = {"mean": "mean", "max": "greatest", "sum": "summed"}
MAY_LACK = ("rating", "timestamp", "weight")

_number = itertools.count()


@dataclass(frozen=True)
class Tables:
    """What a source gives.

    Args:
        rows: The interactions.
        products: A row for each product, in the order of rows.ids: title, and feature columns
            (lists are multi-valued, strings categorical, numbers and booleans numeric).
        users: The same for users, or None.
        shown: Columns that are for people, no features.
        notes: Lines about what was left out.
        folder: Where the rows lie, if it goes with the tables.
    """

    rows: "Rows"
    products: pd.DataFrame
    users: pd.DataFrame | None = None
    shown: tuple[str, ...] = ("title",)
    notes: list[str] = field(default_factory=list)
    folder: tempfile.TemporaryDirectory | None = None


class Rows:
    """Interactions in a table of DuckDB, in file order.

    Attributes:
        con: The connection that knows the table.
        table: Its name. Its columns: row (in all files together), part (place in PARTS, or -1:
            the split says), user, product (positions), and rating, timestamp and weight where
            there are such.
        ids: {"user", "product": raw ids by position, int64 or str}.
        names: Which of rating, timestamp and weight there are.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, ids: dict[str, np.ndarray], names: Iterable[str]
    ) -> None:
        """Makes a table without rows."""
        self.con, self.ids = con, ids
        self.names = [name for name in MAY_LACK if name in set(names)]
        self.table = f"rows_{next(_number)}"
        columns = ["row", "part", "user", "product", *self.names]
        given = ", ".join(f'"{name}" {TYPES[name]}' for name in columns)
        con.execute(f"CREATE TABLE {self.table} ({given})")
        drop = weakref.finalize(self, drop_table, con, self.table)
        drop.atexit = False

    def __len__(self) -> int:
        return self._one(f"SELECT count(*) FROM {self.table}")

    def columns(self, names: Sequence[str]) -> Columns:
        """Returns columns of all rows."""
        found = {name: np.empty(len(self), ARRAYS[name]) for name in names}
        begin = 0
        for piece in self.pieces(names):
            end = begin + len(piece[names[0]])
            for name, column in piece.items():
                found[name][begin:end] = column
            begin = end
        return found

    def frame(self) -> pd.DataFrame:
        """Returns all rows with raw ids, by their number."""
        columns = self.columns(["row", *SIDES, *self.names])
        columns |= {side: self.ids[side][columns[side]] for side in SIDES}
        return pd.DataFrame(columns).set_index("row")

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yields the same, some rows after the others."""
        wanted = ", ".join(map(identifier, names))
        found = self.con.cursor().execute(f"SELECT {wanted} FROM {self.table}")
        while len(piece := found.fetch_df_chunk(AT_ONCE)):
            yield {name: piece[name].to_numpy() for name in names}

    def to_split(self) -> splits.Table:
        """Returns what a split reads."""
        names = ["user", "product", "part", *(name for name in self.names if name != "rating")]
        kind = "INTEGER" if len(self) < 2**31 else "BIGINT"
        place = f"CAST(row_number() OVER () - 1 AS {kind}) AS place"  # row has gaps
        sql = f"SELECT {place}, {', '.join(map(identifier, names))} FROM {self.table}"
        count = len(self.ids["product"])
        return splits.Table(self.con, sql, frozenset(names), len(self), count)

    def latest(self) -> int:
        """Returns the greatest timestamp."""
        return self._one(f"SELECT max(timestamp) FROM {self.table}")

    def append(self, select: str) -> None:
        """Adds what a SELECT of the table's columns gives."""
        with watched(self.con.query_progress, "finding ids"):
            self.con.execute(f"INSERT INTO {self.table} BY NAME {select}")

    def append_columns(self, columns: Columns) -> None:
        """Adds rows."""
        frame = pd.DataFrame({"part": np.int8(-1)} | columns, copy=False)
        self.con.register("appended", frame)
        self.append("SELECT * FROM appended")
        self.con.unregister("appended")

    def refine(
        self, config: DataSettings, name: str, place: Callable[[int], str], notes: list[str]
    ) -> None:
        """Merges repeated rows, and leaves out rare users and products.

        Args:
            config: duplicates, weight_scale, min_user_rows, min_product_rows.
            name: Of the files together, for people.
            place: Where a row is, by its number, for errors.
            notes: Take up what was done.

        Raises:
            TfrecError: There are repeated rows and they are an error, or no row is left.
        """
        if not len(self):
            raise TfrecError(f"{name}: no row is left (--event_weights, --missing_ratings).")
        how = config.duplicates
        how = ("max" if "weight" in self.names else "last") if how == "auto" else how
        if how == "sum" and not {"rating", "weight"} & set(self.names):
            self.con.execute(f"ALTER TABLE {self.table} ADD COLUMN weight FLOAT DEFAULT 1")
            self.names.append("weight")
        dropped = self._merge(how, place)
        if dropped:
            kind = "the latest row"
            if how != "last" and (merged := [each for each in MERGED if each in self.names]):
                kind += f" with the {HOW[how]} {' and '.join(merged)}"
            notes.append(f"{name}: {dropped:,} rows repeat a user and product; kept {kind} of each")
        if config.weight_scale == "log":
            if "weight" not in self.names:
                raise UsageError("weight_scale=log: the rows have no weights.")
            self.con.execute(f"UPDATE {self.table} SET weight = log2(1 + weight)")
        least = {"user": config.min_user_rows, "product": config.min_product_rows}
        if any(least.values()):
            self._leave_out_rare(least, name, notes)

    def _merge(self, how: str, place: Callable[[int], str]) -> int:
        """Makes one row of several of a user and product, and returns how many went.

        It is the latest, by time, then file order.
        """
        table, con = self.table, self.con
        different = self._one(f"SELECT count(DISTINCT hash({PAIR})) FROM {table}")
        if different == len(self):  # no two rows have one key, so no two are of one pair
            return 0
        latest = ("timestamp DESC, " if "timestamp" in self.names else "") + "row DESC"
        merged = [] if how in ("last", "error") else [n for n in MERGED if n in self.names]
        function = "avg" if how == "mean" else how
        values = [f", {function}({n}::DOUBLE) OVER pair AS {n}" for n in merged]
        with watched(con.query_progress, "merging repeated rows"):
            con.execute(
                f"CREATE TEMP TABLE again AS SELECT {PAIR} FROM {table}"
                " GROUP BY ALL HAVING count(*) > 1;"
                f"CREATE TEMP TABLE merged AS SELECT row, {PAIR},"
                f" row_number() OVER (PARTITION BY {PAIR} ORDER BY {latest}) AS nth,"
                f" row_number() OVER (PARTITION BY {PAIR} ORDER BY row) AS time {''.join(values)}"
                f" FROM {table} SEMI JOIN again USING ({PAIR}) WINDOW pair AS (PARTITION BY {PAIR})"
            )
        dropped = self._one("SELECT count(*) FROM merged WHERE nth > 1")
        if dropped and how == "error":
            raise TfrecError(self._repeated(place))
        if merged:
            con.execute(
                f"UPDATE {table} SET {', '.join(f'{n} = merged.{n}' for n in merged)} FROM merged"
                f" WHERE {table}.row = merged.row AND nth = 1"
            )
        con.execute(
            f"DELETE FROM {table} WHERE row IN (SELECT row FROM merged WHERE nth > 1);"
            "DROP TABLE again; DROP TABLE merged"
        )
        return dropped

    def _leave_out_rare(self, least: dict[str, int], name: str, notes: list[str]) -> None:
        """Leaves out users and products with fewer rows, until none is left that has fewer."""
        before, had = len(self), {side: self._present(side) for side in SIDES}
        while True:
            rows = len(self)
            for side, count in least.items():
                fewer = f'SELECT "{side}" FROM {self.table} GROUP BY 1 HAVING count(*) < {count}'
                self.con.execute(f'DELETE FROM {self.table} WHERE "{side}" IN ({fewer})')
            if len(self) == rows:
                break
        given = ", ".join(f"--min_{side}_rows={count}" for side, count in least.items() if count)
        if not rows:
            raise TfrecError(f"{name}: no row is left ({given}). Take less.")
        kept = {}
        for side, count in least.items():
            has = self._present(side)
            # who has attributes alone stays if rows are not asked for
            kept[side] = has if count else has | ~had[side]
        self._renumber(kept)
        counts = [f"{np.count_nonzero(~kept[side]):,} {side}s" for side in SIDES]
        notes.append(
            f"{name}: left out {counts[0]} and {counts[1]}, {before - rows:,} rows ({given})"
        )

    def _present(self, side: str) -> np.ndarray:
        """Returns which users or products have rows, bool [U] or [P]."""
        has = np.zeros(len(self.ids[side]), bool)
        query = f'SELECT DISTINCT "{side}" AS id FROM {self.table}'
        has[np.ma.getdata(self.con.execute(query).fetchnumpy()["id"])] = True
        return has

    def _renumber(self, kept: dict[str, np.ndarray]) -> None:
        """Lets the positions of users and products count those that are kept."""
        places = []
        for side, keeps in kept.items():
            self.ids[side] = self.ids[side][keeps]
            codes = np.flatnonzero(keeps).astype(np.int32)
            frame = pd.DataFrame({"old": codes, "place": np.arange(len(codes), dtype=np.int32)})
            self.con.register(f"kept_{side}", frame)
            places.append(f'kept_{side}.place AS "{side}"')
        joined = " ".join(f'JOIN kept_{side} ON kept_{side}.old = rows."{side}"' for side in kept)
        query = f"SELECT rows.* REPLACE ({', '.join(places)}) FROM {self.table} AS rows {joined}"
        self.con.execute(
            f"CREATE TEMP TABLE renumbered AS {query};"
            f"DELETE FROM {self.table};"
            f"INSERT INTO {self.table} BY NAME SELECT * FROM renumbered ORDER BY row;"
            "DROP TABLE renumbered"
        )

    def shared(self) -> int:
        """Returns how many rows have the user and product of a row of an earlier part."""
        pairs = f'SELECT DISTINCT "user", product FROM {self.table}'
        return len(self) - self._one(f"SELECT count(*) FROM ({pairs})")

    def _repeated(self, place: Callable[[int], str]) -> str:
        query = 'SELECT row, "user", product FROM merged WHERE time > 1 ORDER BY row LIMIT 1'
        ((row, user, product),) = self.con.execute(query).fetchall()
        self.con.execute("DROP TABLE again; DROP TABLE merged")
        pair = f"user {self.ids['user'][user]} and product {self.ids['product'][product]}"
        return (
            f"{place(row)}: {pair} stand in an earlier row, too. --duplicates=last keeps the "
            "latest, mean the mean."
        )

    def _one(self, query: str) -> int:
        ((found,),) = self.con.execute(query).fetchall()
        return found


@dataclass(frozen=True)
class Given:
    """Files that have been read.

    Args:
        readings: Of the files, with the columns user, product, and maybe rating and timestamp.
        parts: Of each file, the place in PARTS of its rows, or -1: the split says.
    """

    readings: list[Reading]
    parts: list[int]

    @property
    def name(self) -> str:
        """Returns what the files together are called."""
        return self.readings[0].file.name if len(self.parts) == 1 else f"{len(self.parts)} files"


def of_files(
    given: Given, tables: dict[str, pd.DataFrame | None], config: DataSettings, notes: list[str]
) -> Rows:
    """Returns the rows of files.

    Args:
        given: The files; their tables are dropped.
        tables: {"user", "product": the table of users or products by id, if there is one}.
        config: As in Rows.refine.
        notes: Take up what was left out.

    Raises:
        TfrecError: A user and product stand in several rows, and that is an error.
    """
    readings = given.readings
    con, columns = readings[0].con, readings[0].columns
    ids, types = {}, {}
    for side in SIDES:
        found, texts = _found(readings, side)
        ids[side], positions = unified(side, found, texts, tables[side])
        types[side] = _Codes(con, ids[side], found, positions)
    rows = Rows(con, ids, columns)
    begins = list(itertools.accumulate(map(len, readings), initial=0))
    for reading, part, begin in zip(readings, given.parts, begins):
        values = [f'{types[side].of(reading.columns[side])} AS "{side}"' for side in SIDES]
        values += [f"{reading.columns[name]} AS {name}" for name in rows.names]
        rows.append(
            f"SELECT {begin} + rowid AS row, {part} AS part, {', '.join(values)} "
            f"FROM {reading.table} WHERE {reading.good}"
        )
        reading.drop()
    for codes in types.values():
        codes.drop()

    def place(row: int) -> str:
        at = bisect.bisect_right(begins, row) - 1
        return f"{readings[at].file.name}, row {readings[at].row(row - begins[at]):,}"

    rows.refine(config, given.name, place, notes)
    return rows


def of_frame(
    con: duckdb.DuckDBPyConnection,
    frame: pd.DataFrame,
    tables: dict[str, pd.DataFrame | None] | None = None,
) -> Rows:
    """Returns the rows of a frame, to be merged.

    Args:
        con: A connection to DuckDB.
        frame: user, product: int64, or texts; and maybe rating, timestamp and part. Its index
            numbers the rows.
        tables: As in `of_files`; None: there are none.
    """
    ids, columns = {}, {str(name): frame[name].to_numpy() for name in frame}
    for side in SIDES:
        codes, names = pd.factorize(frame[side].to_numpy())
        ids[side], positions = unified(side, names, True, tables and tables[side])
        columns[side] = positions[codes]
    rows = Rows(con, ids, columns)
    rows.append_columns({"row": frame.index.to_numpy()} | columns)
    return rows


def of_blocks(
    con: duckdb.DuckDBPyConnection, blocks: Iterable[Columns], ids: dict[str, np.ndarray]
) -> Rows:
    """Returns rows that are there as positions of users and products, some after the others.

    Args:
        con: A connection to DuckDB.
        blocks: user, product, rating, timestamp.
        ids: {"user", "product": raw ids by position}.
    """
    rows, count, blocks = Rows(con, ids, ("rating", "timestamp")), 0, iter(blocks)
    with ThreadPoolExecutor(1) as pool:  # rows are inserted while the next are drawn
        inserted: Future[None] | None = None
        while some := list(itertools.islice(blocks, BLOCKS_AT_ONCE)):
            columns = {name: np.concatenate([block[name] for block in some]) for name in some[0]}
            columns["row"] = np.arange(count, count + len(columns["user"]))
            count += len(columns["row"])
            if inserted:
                inserted.result()
            inserted = pool.submit(rows.append_columns, columns)
        if inserted:
            inserted.result()
    return rows


def with_tables(
    rows: Rows,
    tables: dict[str, pd.DataFrame | None],
    attributes: dict[str, Attributes],
    notes: list[str],
) -> Tables:
    """Returns the tables with a row for each user and product.

    Args:
        rows: The interactions.
        tables: As in `of_files`, and what `complete` says.
        attributes: {"user", "product": which columns of the table make features}.
        notes: Take up what lacks.
    """
    products, users = (
        complete(tables[side], side, rows.ids[side], attributes[side], notes)
        for side in ("product", "user")
    )
    assert products is not None
    return Tables(rows, products, users, notes=notes)


class _Codes:
    """A type of DuckDB whose values are the ids of users or products, in the catalog's order.

    Args:
        con: A connection to DuckDB.
        ids: All ids, by position.
        found: Ids as the files have them, and the position of each.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        ids: np.ndarray,
        found: np.ndarray,
        positions: np.ndarray,
    ) -> None:
        self.con, self.name = con, f"ids_{next(_number)}"
        names = ids.astype(str).astype(object)
        # 12.0 is 12
        self.pointed = found.dtype == object and bool((found != names[positions]).any())
        con.register("names", pd.DataFrame({"id": names}))
        con.execute(f"CREATE TYPE {self.name} AS ENUM (SELECT id FROM names)")
        con.unregister("names")

    def of(self, sql: str) -> str:
        """Returns the SQL of the position of an id."""
        text = f"CAST({sql} AS VARCHAR)"
        text = f"regexp_replace({text}, '\\.0+$', '')" if self.pointed else text
        return f"CAST(enum_code(CAST({text} AS {self.name})) AS INTEGER)"

    def drop(self) -> None:
        """Removes the type."""
        self.con.execute(f"DROP TYPE {self.name}")


def _found(readings: list[Reading], side: str) -> tuple[np.ndarray, bool]:
    """Returns the different ids of some files, and whether one of the files calls them texts."""
    values = " UNION ALL ".join(
        f"SELECT {reading.columns[side]} AS id FROM {reading.table} WHERE {reading.good}"
        for reading in readings
    )
    con = readings[0].con
    with watched(con.query_progress, "finding ids"):
        found = con.execute(f"SELECT DISTINCT id FROM ({values})").fetchnumpy()["id"]
    return np.ma.getdata(found), any(side in reading.texts for reading in readings)
