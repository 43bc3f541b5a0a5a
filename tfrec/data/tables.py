"""What a source gives, and what every source has to do with it.

Repeated rows, ids of one type, attributes for everyone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tfrec.data.settings import DataSettings
from tfrec.errors import TfrecError

PARTS = ("train", "validation", "test")  # the numbers in Tables.interactions["part"]
MISSING = "(missing)"
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,17})(\.0+)?", re.ASCII)
MOST_VALUES = 10_000  # of a column that makes a feature


@dataclass
class Tables:
    """What a source gives.

    interactions: user, product (raw ids, int64 or str), rating (float32; may lack), timestamp
        (int64, seconds; may lack), and with --split=files part (position in PARTS). In file order,
        indexed by row number.
    products: indexed by raw id: title, and feature columns (lists are multi-valued, strings
        categorical, numbers and booleans numeric). Its order numbers the products.
    users: the same for users, or None. Columns in `shown` are for people, not features.
    notes: lines about rows that were left out.
    """

    interactions: pd.DataFrame
    products: pd.DataFrame
    users: pd.DataFrame | None
    shown: tuple[str, ...] = ("title", "name", "year")
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """Some of the interactions, as in Tables but for `part` (its place in PARTS, -1: the split
    says).

    texts: columns that the file calls text. Other ids of type object are whole numbers if all of
    the data's are such (`as_ids`).
    row: {index of the interactions: row of the file}, as a function.
    """

    interactions: pd.DataFrame
    file: str
    part: int
    texts: set[str]
    row: Callable[[int], int]


@dataclass(frozen=True)
class Stream:
    """A source piece by piece: `pieces` (once), then `tables(interactions)` of some interactions
    that hold every user and product.

    notes: grow as the pieces are read.
    """

    pieces: Iterator[Piece]
    tables: Callable[[pd.DataFrame], Tables]
    notes: list[str]


@dataclass(frozen=True)
class Attributes:
    """Which columns of a table make features: texts, lists of texts, numbers."""

    categorical: tuple[str, ...]
    multivalued: tuple[str, ...]
    numeric: tuple[str, ...]

    @staticmethod
    def of(config: DataSettings, side: str) -> "Attributes":
        """side: "products" or "users"."""
        return Attributes(
            *(
                getattr(config, f"{side}_{kind}")
                for kind in ("categorical", "multivalued", "numeric")
            )
        )

    def names(self) -> tuple[str, ...]:
        """Returns the names of all attributes."""
        return self.categorical + self.multivalued + self.numeric


def distinct(
    table: pd.DataFrame, file: str, how: str, notes: list[str], place: Callable[[int], str]
) -> pd.DataFrame:
    """Returns the interactions of one file, each (user, product) once: the latest row of it (by
    timestamp, then file order).

    Args:
        how: "last", "mean" (with the mean of the ratings) or "error".
        place: Where a row of the table is, by its index, for errors.

    Raises:
        TfrecError: there are repeated pairs, and they are an error.
    """
    again = table.duplicated(["user", "product"])
    if not again.any():
        return table
    if how == "error":
        row = table.index[again][0]
        pair = f"user {table['user'][row]} and product {table['product'][row]}"
        raise TfrecError(
            f"{place(row)}: {pair} stand in an earlier row, too. --duplicates=last keeps the "
            "latest, mean the mean."
        )
    ordered = table.sort_values("timestamp", kind="stable") if "timestamp" in table else table
    kept = ordered.drop_duplicates(["user", "product"], keep="last").sort_index()
    mean = how == "mean" and "rating" in table
    if mean:
        means = (
            table.astype({"rating": float}).groupby(["user", "product"])["rating"].transform("mean")
        )
        kept = kept.assign(rating=means[kept.index].astype(np.float32))
    kind = "the latest row" + (" with the mean rating" if mean else "")
    notes.append(
        f"{file}: {int(again.sum()):,} rows repeat a user and product; kept {kind} of each"
    )
    return kept


def complete(
    interactions: pd.DataFrame,
    products: pd.DataFrame | None,
    users: pd.DataFrame | None,
    of_products: Attributes,
    of_users: Attributes,
    notes: list[str],
) -> Tables:
    """Tables of data that need not be whole: a user or product without attributes gets the missing
    value of each.

    products: None, or title (None where missing) and the columns of Attributes: text or None, list
    or None, number or NaN. users: the same, without a title.
    """
    interactions, products, users = _same_ids(interactions, products, users)
    ids = _sorted_ids(interactions["product"])
    if products is None:
        products = pd.DataFrame(
            {"title": [str(each) for each in ids]}, index=pd.Index(ids, name="product")
        )
    else:
        products = _filled(_for_everyone(products, ids, "products", notes), of_products)
        products["title"] = products["title"].where(
            products["title"].notna(), products.index.astype(str)
        )
    if users is not None:
        users = _for_everyone(users, _sorted_ids(interactions["user"]), "users", notes)
        users = _filled(users, of_users)
    return Tables(interactions, products, users, shown=("title",), notes=notes)


def as_ids(texts: Sequence[str]) -> np.ndarray:
    """Whole numbers where all of the texts are such and lose nothing (007 would), else the texts
    (object). 12.0 is 12.
    """
    codes, unique = pd.factorize(np.array(texts, dtype=object))
    whole = [WHOLE.fullmatch(text) for text in unique]
    if all(whole):
        return np.array([int(match[1]) for match in whole if match], np.int64)[codes]
    return unique[codes]


def coded_ids(ids: pd.Categorical, texts: bool) -> pd.Categorical:
    """Returns ids whose categories are whole numbers, if all are such, or texts.

    Args:
        texts: They are texts, whatever they look like.
    """
    names = ids.categories.to_numpy(object)
    codes, unique = pd.factorize(names if texts else as_ids(names))
    return pd.Categorical.from_codes(codes[ids.codes], pd.Index(unique))


def _sorted_ids(column: pd.Series) -> np.ndarray:
    return pd.factorize(column.to_numpy(), sort=True)[1]


def _same_ids(*tables: pd.DataFrame | None) -> tuple:
    """Returns the tables (interactions, products, users) with ids of one type each.

    Text where they are text in one of them.
    """
    interactions, *others = tables
    assert interactions is not None
    for at, name in enumerate(("product", "user")):
        other = others[at]
        texts = interactions[name].dtype != np.int64 or (
            other is not None and other.index.dtype != np.int64
        )
        if texts:
            interactions = interactions.assign(
                **{name: interactions[name].astype(str).astype(object)}
            )
            if other is not None:
                others[at] = other.set_axis(other.index.astype(str).astype(object))
    return interactions, *others


def _for_everyone(
    table: pd.DataFrame, ids: np.ndarray, side: str, notes: list[str]
) -> pd.DataFrame:
    """Returns the table with an empty row for each of the ids that lack."""
    lacking = pd.Index(ids).difference(table.index)
    if len(lacking):
        notes.append(
            f"{side} table: no row for {len(lacking):,} of {len(ids):,} {side}, such as "
            f"{lacking[0]}; their features are missing"
        )
    return table.reindex(table.index.append(lacking))


def _filled(table: pd.DataFrame, attributes: Attributes) -> pd.DataFrame:
    """Features without gaps: (missing) is a value; numbers get mean 0 and deviation 1, where
    missing 0 and a second column 1.

    A number stays within 3 deviations: else what costs a hundred times the others would be at the
    top, or the end, of everybody's list.
    """
    filled = table.copy()
    for column in attributes.categorical:
        filled[column] = table[column].where(table[column].notna(), MISSING)
        _limit(column, filled[column].nunique())
    for column in attributes.multivalued:
        lists = [
            items if isinstance(items, list) and items else [MISSING] for items in table[column]
        ]
        filled[column] = pd.Series(lists, index=table.index, dtype=object)
        _limit(column, len({item for items in lists for item in items}))
    for column in attributes.numeric:
        values = table[column].astype(float)
        filled[column] = (
            ((values - values.mean()) / (values.std(ddof=0) or 1))
            .clip(-3, 3)
            .fillna(0)
            .astype(np.float32)
        )
        filled[f"{column}={MISSING}"] = values.isna()
    return filled


def _limit(column: str, count: int) -> None:
    if count > MOST_VALUES:
        raise TfrecError(
            f"column {column}: {count:,} different values; at most {MOST_VALUES:,} make a "
            "feature. Is it an id, or free text?"
        )
