"""Which rows train, validate and test.

One rule cuts twice: the test rows from all rows, then the validation rows from what is left. Rules
that draw at random are numpy's permutations, as published protocols need them; the others are SQL
over a table of DuckDB, wherever the rows are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from tfrec.data.interactions import Split
from tfrec.data.settings import DataSettings
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError
from tfrec.system.progress import watched


@dataclass(frozen=True)
class Table:
    """What a split reads of the rows.

    Args:
        con: A connection to DuckDB.
        sql: A query that gives each row's place in file order, and user, product, timestamp and
            part where there are such.
        names: Which of them there are.
        count: Number of rows.
        num_products: Number of products.
    """

    con: duckdb.DuckDBPyConnection
    sql: str
    names: frozenset[str]
    count: int
    num_products: int

    def rows(self, query: str, among: np.ndarray) -> np.ndarray:
        """Returns the places in file order that a query gives.

        Args:
            query: Reads `place` and the columns FROM rows.
            among: The places that are among the rows.
        """
        fewer = ""
        if len(among) < self.count:
            self.con.register("chosen", pd.DataFrame({"place": among}, copy=False))
            fewer = " SEMI JOIN chosen USING (place)"
        with watched(self.con.query_progress, "splitting"):
            found = self.con.execute(f"WITH rows AS (SELECT * FROM ({self.sql}){fewer}) {query}")
            places = np.ma.getdata(found.fetchnumpy()["place"])
        self.con.unregister("chosen")
        return places


DISLIKED = len(PARTS)  # in place of a part: training rows that are no likes
Cut = tuple[np.ndarray, np.ndarray]  # rows that are kept, and those that are held out


def divide(table: Table, config: DataSettings) -> np.ndarray:
    """Returns each row's place in PARTS, int8 [N].

    Raises:
        UsageError: The data lack what the split needs, or a part that must have rows has none.
    """
    train = np.arange(table.count, dtype=np.int32 if table.count < 2**31 else np.int64)
    part = np.zeros(table.count, np.int8)
    if config.split == "files":
        found = table.con.execute(f"SELECT part FROM ({table.sql})").fetchnumpy()["part"]
        part[:] = np.ma.getdata(found)
        train = train[part == 0]
    elif config.split == "kfold":
        train, test = _kfold(train, config)
        part[test] = 2
    else:
        train, test = _cut(config.split, table, train, config.test_fraction, config.split_seed)
        part[test] = 2
    if not config.validation_file:
        rule = config.split if config.split in RULES else "random"
        rule = rule if config.validation_rule == "split" else config.validation_rule
        seed, fraction = config.split_seed + 1, config.validation_fraction
        part[_cut(rule, table, train, fraction, seed)[1]] = 1
    train_rows, _, test_rows = (np.count_nonzero(part == at) for at in range(len(PARTS)))
    if not train_rows or not test_rows:
        raise UsageError(
            f"--split={config.split}: {train_rows:,} training and {test_rows:,} test rows; both "
            "need some."
        )
    return part


def without_disliked(part: np.ndarray, ratings: np.ndarray | None, least: float) -> np.ndarray:
    """Returns the parts, where training rows below a rating are DISLIKED.

    Args:
        part: Each row's place in PARTS, int8 [N].
        ratings: f32 [N]; None: the data have none.
        least: What a row is rated that is a like.

    Raises:
        UsageError: There are no ratings, or no training row is a like.
    """
    if ratings is None:
        raise UsageError(f"positive_from={least:g}: the data have no ratings.")
    found = np.where((part == 0) & (ratings < least), np.int8(DISLIKED), part)
    if not np.any(found == 0):
        raise UsageError(f"positive_from={least:g}: no training row has such a rating. Take less.")
    return found


def _cut(rule: str, table: Table, rows: np.ndarray, fraction: float, seed: int) -> Cut:
    if fraction == 0 or not len(rows):
        return rows, rows[:0]
    if rule == "random":
        return _random(rows, fraction, seed)
    if rule in TIMED and "timestamp" not in table.names:
        raise UsageError(
            "--split: the data have no timestamps. Take random, by_product, cold_user, "
            "cold_product, kfold or files."
        )
    held_out = np.zeros(table.count, bool)
    held_out[RULES[rule](table, rows, fraction, seed)] = True
    held_out = held_out[rows]
    return rows[~held_out], rows[held_out]


def _random(rows: np.ndarray, fraction: float, seed: int) -> Cut:
    """Holds out the first floor(fraction n) of the rows, which it permutes in place."""
    np.random.RandomState(seed % 2**32).shuffle(rows)
    count = int(fraction * len(rows) + 1e-9)
    return rows[count:], rows[:count]


def _kfold(rows: np.ndarray, config: DataSettings) -> Cut:
    """One shuffle, in place, cut into folds.

    The first n mod folds of them have one row more (as scikit-learn and Surprise do).
    """
    np.random.RandomState(config.split_seed).shuffle(rows)
    sizes = np.full(config.folds, len(rows) // config.folds)
    sizes[: len(rows) % config.folds] += 1
    start = sizes[: config.fold].sum()
    end = start + sizes[config.fold]
    return np.sort(np.concatenate([rows[:start], rows[end:]])), rows[start:end]


def _temporal(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns all but the first floor((1 - fraction) n) rows by (timestamp, file order)."""
    count = _kept(fraction, len(rows))
    return table.rows(f"SELECT place FROM rows ORDER BY timestamp, place OFFSET {count}", rows)


def _user_temporal(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Of each user's n rows by (timestamp, file order), the first floor((1 - fraction) n) are kept,
    and the first one in any case.

    What is rounded up in favour of the rows held out makes up, on long tails, for those who have a
    single row and keep it.
    """
    kept = f'greatest(floor({1 - fraction!r} * count(*) OVER (PARTITION BY "user") + 1e-9), 1)'
    number = 'row_number() OVER (PARTITION BY "user" ORDER BY timestamp, place)'
    return table.rows(f"SELECT place FROM rows QUALIFY {number} > {kept}", rows)


def _leave_one_out(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns each user's latest row, unless it is their only one; the fraction does not matter."""
    latest = 'row_number() OVER (PARTITION BY "user" ORDER BY timestamp DESC, place DESC) = 1'
    several = 'count(*) OVER (PARTITION BY "user") > 1'
    return table.rows(f"SELECT place FROM rows QUALIFY {latest} AND {several}", rows)


def _by_product(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns the rows of the last `fraction` of the product columns that these rows may lie in
    (the reference system's split).
    """
    width = table.num_products
    if len(rows) < table.count:
        width = int(table.rows("SELECT max(product) AS place FROM rows", rows)[0]) + 1
    first = _kept(fraction, width)
    return table.rows(f"SELECT place FROM rows WHERE product >= {first}", rows)


def _cold(side: str) -> Callable[[Table, np.ndarray, float, int], np.ndarray]:
    def cut(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        """Returns all rows of a random `fraction` of the users or products."""
        known = table.rows(f'SELECT DISTINCT "{side}" AS place FROM rows ORDER BY 1', rows)
        count = int(fraction * len(known) + 1e-9)
        chosen = np.random.RandomState(seed % 2**32).permutation(known)[:count]
        table.con.register("held_out", pd.DataFrame({side: chosen}))
        return table.rows(f'SELECT place FROM rows SEMI JOIN held_out USING ("{side}")', rows)

    return cut


def _last_rows(table: Table, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns the last rows in (user, product) order, as Keras' validation_split does on the
    reference's table.
    """
    order = f'ORDER BY "user", product, place OFFSET {_kept(fraction, len(rows))}'
    return table.rows(f"SELECT place FROM rows {order}", rows)


# those whose test rows are later than the user's other rows; those of files are taken to be
BY_TIME = ("files", "leave_one_out", "temporal", "user_temporal")
RULES: dict[str, Callable[[Table, np.ndarray, float, int], np.ndarray]] = {
    "temporal": _temporal,
    "user_temporal": _user_temporal,
    "leave_one_out": _leave_one_out,
    "by_product": _by_product,
    "cold_user": _cold("user"),
    "cold_product": _cold("product"),
    "last_rows": _last_rows,
}
TIMED = ("temporal", "user_temporal", "leave_one_out")


def _kept(fraction: float, count: int) -> int:
    return int((1 - fraction) * count + 1e-9)


def surprises(split: Split, config: DataSettings) -> list[str]:
    """Returns a line each for what a user may not expect of the split."""
    train, validation, test = map(len, split.parts())
    lines: list[str] = []
    if split.train.disliked is not None:
        likes, train = train, train + len(split.train.disliked)
        lines.append(
            f"{likes:,} of {train:,} training rows are likes (--positive_from="
            f"{config.positive_from:g})"
        )
    asked: list[tuple[str, int, int, float]] = []
    if config.split not in ("files", "kfold", "leave_one_out"):
        every = train + validation + test
        asked.append(("all rows are tested", test, every, config.test_fraction))
        rest = ("the others are validated", validation, train + validation)
        asked.append((*rest, config.validation_fraction))
    lines += [
        f"note: {100 * count / max(of, 1):.0f} % of {what}, not {100 * share:.0f} %: "
        f"--split={config.split}"
        for what, count, of, share in asked
        if abs(count / max(of, 1) - share) > 0.05
    ]
    known = split.train.counts("user") > 0
    new = sum(np.count_nonzero(~known[chunk["user"]]) for chunk in split.test.chunks())
    if new > 0.2 * test and config.split != "cold_user":
        lines.append(
            f"note: {100 * new / test:.0f} % of the tested rows are of users without training "
            "rows, of whom a model knows nothing"
        )
    return lines
