"""Tables of products and users: their ids, and attributes for all of them."""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrec.data.settings import DataSettings
from tfrec.errors import TfrecError, nearest

PARTS = ("train", "validation", "test")  # the numbers in a column `part`
SIDES = ("user", "product")
MISSING = "(missing)"
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,17})(\.0+)?", re.ASCII)
MOST_VALUES = 1_000_000  # of a column that makes features


@dataclass(frozen=True)
class Attributes:
    """Which columns of a table make features: names, lists of names, numbers, and texts of which
    each word counts; the title is called so whatever its column.

    bins: Into how many numbers are cut; 0: they are not.
    """

    categorical: tuple[str, ...] = ()
    multivalued: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    bins: int = 0

    @staticmethod
    def of(config: DataSettings, side: str) -> "Attributes":
        """side: "products" or "users"."""
        title, of_products = config.products_title, side == "products"
        text = ["title" if column == title else column for column in config.products_text]
        return Attributes(
            getattr(config, f"{side}_categorical"),
            getattr(config, f"{side}_multivalued"),
            getattr(config, f"{side}_numeric"),
            tuple(text) if of_products else (),
            config.numeric_bins,
        )

    def names(self) -> tuple[str, ...]:
        """Returns the names of all attributes but the title."""
        return self.categorical + self.multivalued + self.numeric + self.described

    @property
    def described(self) -> tuple[str, ...]:
        """Returns the columns of texts beside the title."""
        return tuple(column for column in self.text if column != "title")


def check_events(where: str, events: set[str], weights: Collection[str], flag: str) -> list[str]:
    """Returns a note for each event that has a weight and is not there.

    Raises:
        TfrecError: None is there.
    """
    if not events & set(weights):
        some = sorted(map(str, events))[:5]
        hint = nearest(next(iter(weights)), some)
        raise TfrecError(f"{where}: none of its events ({', '.join(some)}) is among {flag}.{hint}")
    lacking = [name for name in weights if name not in events]
    return [f"no event is called {name}.{nearest(name, events)} ({flag})" for name in lacking]


def complete(
    table: pd.DataFrame | None, side: str, ids: np.ndarray, attributes: Attributes, notes: list[str]
) -> pd.DataFrame | None:
    """Returns a table of products or users with a row for each of the ids, in their order.

    Who has no row, or no value, gets the missing value of each attribute.

    Args:
        table: By id: title (of products; None where missing), and the columns of Attributes: text
            or None, list or None, number or NaN. None: there is no table.
        side: "product" or "user".
        ids: Of all products or users.
        attributes: Which columns make features.
        notes: Take up what lacks.
    """
    if table is None:
        return pd.DataFrame({"title": list(map(str, ids))}, ids) if side == "product" else None
    if table.index.dtype != ids.dtype:
        table = table.set_axis(table.index.astype(str).astype(object))
    lacking = ids[~pd.Index(ids).isin(table.index)]
    if len(lacking):
        notes.append(
            f"{side}s table: no row for {len(lacking):,} of {len(ids):,} {side}s, such as "
            f"{lacking[0]}; their features are missing"
        )
    table = _filled(table.reindex(ids), attributes)
    if side == "product":
        names = pd.Series(list(map(str, ids)), ids, dtype=object)
        table["title"] = table["title"].where(table["title"].notna(), names)
    return table


def unified(
    side: str, found: np.ndarray, texts: bool, table: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of all users or products, and the position of each that was found, int32.

    They are whole numbers where all are such, else texts. Users are sorted; products come in the
    order of their table, then those that have no row in it, sorted.

    Args:
        side: "user" or "product".
        found: The different ids of the interactions: int64, or texts.
        texts: Texts stay such, whatever they look like.
        table: Of users or products, by id; None: there is none.

    Raises:
        TfrecError: No id of the table was found.
    """
    found = found if texts or found.dtype != object else as_ids(found)
    if table is None:
        positions, ids = pd.factorize(found, sort=True)
        return ids, positions.astype(np.int32)
    known = table.index.to_numpy()
    if known.dtype != found.dtype:
        found, known = (each.astype(str).astype(object) for each in (found, known))
    lacking = pd.factorize(found[~pd.Index(found).isin(known)], sort=True)[1]
    if 0 < len(lacking) == len(found) and len(known):
        raise TfrecError(
            f"{side}s table: none of its {len(known):,} ids, such as {known[0]}, is in the "
            f"interactions, whose ids are such as {lacking[0]}. Is --{side}s_id the right column?"
        )
    ids = np.concatenate([known, lacking])
    ids = pd.factorize(ids, sort=True)[1] if side == "user" else ids
    return ids, pd.Index(ids).get_indexer(pd.Index(found)).astype(np.int32)


def as_ids(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Whole numbers where all of the texts are such and lose nothing (007 would), else the texts
    (object). 12.0 is 12.
    """
    codes, unique = pd.factorize(np.array(texts, dtype=object))
    whole = [WHOLE.fullmatch(text) for text in unique]
    if all(whole):
        return np.array([int(match[1]) for match in whole if match], np.int64)[codes]
    return unique[codes]


def _filled(table: pd.DataFrame, attributes: Attributes) -> pd.DataFrame:
    """Features without gaps: (missing) is a value; numbers get mean 0 and deviation 1, where
    missing 0 and a second column 1.

    A number stays within 3 deviations: else what costs a hundred times the others would be at the
    top, or the end, of everybody's list.
    """
    filled = table.copy()
    for column in attributes.categorical:
        filled[column] = table[column].where(table[column].notna(), MISSING)
    for column in attributes.multivalued:
        lists = [
            items if isinstance(items, list) and items else [MISSING] for items in table[column]
        ]
        filled[column] = pd.Series(lists, index=table.index, dtype=object)
    for column in attributes.numeric:
        if attributes.bins:
            filled[column] = _binned(table[column], attributes.bins)
            continue
        values = table[column].astype(float)
        filled[column] = (
            ((values - values.mean()) / (values.std(ddof=0) or 1))
            .clip(-3, 3)
            .fillna(0)
            .astype(np.float32)
        )
        filled[f"{column}={MISSING}"] = values.isna()
    return filled


def _binned(values: pd.Series, bins: int) -> pd.Series:
    """Returns the bin of each number, such as 9.5..20, of about as many numbers each.

    A bin holds its upper end and not its lower one, but for the first. A value that is as common as
    a bin is one by itself.
    """
    known = values[values.notna()].to_numpy()
    if not len(known):
        return pd.Series(MISSING, values.index, dtype=object)
    if len(np.unique(known)) <= bins:
        edges, common = np.unique(known), np.unique(known)
    else:
        quantiles = np.quantile(known, np.linspace(0, 1, bins + 1), method="inverted_cdf")
        edges, counts = np.unique(quantiles, return_counts=True)
        common = edges[counts > 1]
    texts = [str(edge).removesuffix(".0") for edge in edges]
    between = [f"{low}..{high}" for low, high in itertools.pairwise(texts)] or texts
    at = np.searchsorted(edges, values.fillna(edges[0]))
    found = np.array(between, object)[np.clip(at - 1, 0, len(between) - 1)]
    alone = np.isin(edges, common)[at]
    found = np.where(alone, np.array(texts, object)[at], found)
    return pd.Series(found, values.index).where(values.notna(), MISSING)
