"""Which rows train, validate and test.

One rule cuts twice: the test rows from all rows, then the validation rows from what is left. Row
numbers take 4 bytes, so that the rules go for a hundred million rows in a few gigabytes: at most
about 15 bytes a row beside the columns that the rule reads (NEEDS), temporal and last_rows 30.
"""

from dataclasses import dataclass

import numpy as np

from tfrec.data.interactions import Split
from tfrec.data.settings import DataSettings
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError


@dataclass(frozen=True)
class Columns:
    """What a split may read of its rows: their number, how many products there are, and the columns
    of Dataset, each of which may lack where the rule does not need it.
    """

    count: int
    num_products: int
    user: np.ndarray | None = None
    product: np.ndarray | None = None
    timestamp: np.ndarray | None = None
    part: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count


def needs(config: DataSettings) -> set[str]:
    """Returns the columns that the split reads."""
    return set(NEEDS.get(config.split, ())) | (
        {"user", "product"} if config.validation_rule == "last_rows" else set()
    )


def split_rows(columns: Columns, config: DataSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers to train, to validate and to test, in no particular order.

    int32, or int64 where there are more than 2^31 rows.

    Raises:
        UsageError: The data lack what the split needs, or a part that must have rows has none.
    """
    every = np.arange(len(columns), dtype=np.int32 if len(columns) < 2**31 else np.int64)
    if config.split == "files":
        assert columns.part is not None
        train, validation, test = (every[columns.part == part] for part in range(len(PARTS)))
    elif config.split == "kfold":
        train, test = _kfold(every, config)
    else:
        train, test = _cut(config.split, columns, every, config.test_fraction, config.split_seed)
    del every
    if not config.validation_file:
        rule = config.split if config.split in RULES else "random"
        rule = "last_rows" if config.validation_rule == "last_rows" else rule
        train, validation = _cut(
            rule, columns, train, config.validation_fraction, config.split_seed + 1
        )
    if not len(train) or not len(test):
        raise UsageError(
            f"--split={config.split}: {len(train):,} training and {len(test):,} test rows; both "
            "need some."
        )
    return train, validation, test


def _cut(
    rule: str, columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that are kept, and those that are held out."""
    if fraction == 0 or not len(rows):
        return rows, rows[:0]
    groups = -(-len(rows) // AT_ONCE) if rule in OF_USERS else 1
    if groups == 1:
        return RULES[rule](columns, rows, fraction, seed)
    group = (
        _of(columns.user)[rows] % groups
    )  # each user's rows are cut alone, so some users after the others come to the same
    cuts = [RULES[rule](columns, rows[group == number], fraction, seed) for number in range(groups)]
    kept, held_out = (np.concatenate(parts) for parts in zip(*cuts))
    return kept, held_out


def _permutation(count: int, seed: int, dtype: np.dtype) -> np.ndarray:
    """RandomState(seed).permutation(count), in less room."""
    order = np.arange(count, dtype=dtype)
    np.random.RandomState(seed).shuffle(order)
    return order


def _random(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first floor(fraction n) of the permuted rows are held out."""
    order = _permutation(len(rows), seed % 2**32, rows.dtype)
    count = int(fraction * len(rows) + 1e-9)
    return rows[order[count:]], rows[order[:count]]


def _kfold(rows: np.ndarray, config: DataSettings) -> tuple[np.ndarray, np.ndarray]:
    """One shuffle, cut into folds.

    The first n mod folds of them have one row more (as scikit-learn and Surprise do).
    """
    order = _permutation(len(rows), config.split_seed, rows.dtype)
    sizes = np.full(config.folds, len(rows) // config.folds)
    sizes[: len(rows) % config.folds] += 1
    start = sizes[: config.fold].sum()
    end = start + sizes[config.fold]
    return np.sort(np.concatenate([order[:start], order[end:]])), order[start:end].copy()


def _temporal(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first floor((1 - fraction) n) rows by (timestamp, file order) are kept."""
    rows = np.sort(rows)
    time = _time(columns)[rows]
    count = int((1 - fraction) * len(rows) + 1e-9)
    border = np.partition(time, count)[count]
    kept = time < border
    kept[np.flatnonzero(time == border)[: count - np.count_nonzero(kept)]] = True
    return rows[kept], rows[~kept]


def _user_temporal(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each user's n rows by (timestamp, file order), the first floor((1 - fraction) n) are kept,
    and the first one in any case.

    What is rounded up in favour of the rows held out makes up, on long tails, for those who have a
    single row and keep it.
    """
    order, position, count = _by_user(columns, rows)
    kept = position < np.maximum(np.floor((1 - fraction) * count + 1e-9), 1)
    return order[kept], order[~kept]


def _leave_one_out(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each user's latest row is held out, unless it is their only one.

    The fraction does not matter.
    """
    order, position, count = _by_user(columns, rows)
    last = (position == count - 1) & (count > 1)
    return order[~last], order[last]


def _by_product(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the last `fraction` of the product columns that these rows may lie in are held out
    (the reference system's split).
    """
    product = _of(columns.product)
    width = columns.num_products if len(rows) == len(columns) else int(product[rows].max()) + 1
    held_out = product[rows] >= int((1 - fraction) * width + 1e-9)
    return rows[~held_out], rows[held_out]


def _cold(
    ids: np.ndarray, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all rows of a random `fraction` of the ids are held out."""
    known = np.unique(ids[rows])
    chosen = np.random.RandomState(seed % 2**32).permutation(known)[
        : int(fraction * len(known) + 1e-9)
    ]
    held_out = np.isin(ids[rows], chosen)
    return rows[~held_out], rows[held_out]


def _last_rows(
    columns: Columns, rows: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the last rows in (user, product) order are held out, as Keras' validation_split does
    on the reference's table.
    """
    rows = np.sort(rows)
    order = rows[np.lexsort((_of(columns.product)[rows], _of(columns.user)[rows]))]
    count = int((1 - fraction) * len(rows) + 1e-9)
    return order[:count], order[count:]


RULES = {
    "random": _random,
    "temporal": _temporal,
    "user_temporal": _user_temporal,
    "leave_one_out": _leave_one_out,
    "by_product": _by_product,
    "cold_user": lambda columns, rows, fraction, seed: _cold(
        _of(columns.user), rows, fraction, seed
    ),
    "cold_product": lambda columns, rows, fraction, seed: _cold(
        _of(columns.product), rows, fraction, seed
    ),
    "last_rows": _last_rows,
}
NEEDS = {
    "temporal": ("timestamp",),
    "user_temporal": ("user", "timestamp"),
    "leave_one_out": ("user", "timestamp"),
    "by_product": ("product",),
    "cold_user": ("user",),
    "cold_product": ("product",),
    "files": ("part",),
}
OF_USERS = ("user_temporal", "leave_one_out")  # rules that look at one user after the other
AT_ONCE = 2**24  # rows that such a rule sorts together


def _of(column: np.ndarray | None) -> np.ndarray:
    assert column is not None
    return column


def _time(columns: Columns) -> np.ndarray:
    if columns.timestamp is None:
        raise UsageError(
            "--split: the data have no timestamps. Take random, by_product, cold_user, "
            "cold_product, kfold or files."
        )
    return columns.timestamp


def _by_user(columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by (user, timestamp, file order), each one's position among its user's rows, and
    the user's number of rows.
    """
    order = rows[np.lexsort((rows, _time(columns)[rows], _of(columns.user)[rows]))]
    user = _of(columns.user)[order]
    _, first, counts = np.unique(user, return_index=True, return_counts=True)
    position = np.arange(len(order)) - np.repeat(first, counts)
    return order, position, np.repeat(counts, counts)


def surprises(split: Split, config: DataSettings) -> list[str]:
    """Returns a line each for what a user may not expect of the split."""
    train, validation, test = map(len, split.parts())
    asked: list[tuple[str, int, int, float]] = []
    if config.split not in ("files", "kfold", "leave_one_out"):
        every = train + validation + test
        asked.append(("all rows are tested", test, every, config.test_fraction))
        rest = ("the others are validated", validation, train + validation)
        asked.append((*rest, config.validation_fraction))
    lines = [
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
