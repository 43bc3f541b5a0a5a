"""Tables -> Catalog and columns: what models read of products, users and times, as numbers."""

import calendar
import functools
import zoneinfo

import numpy as np
import pandas as pd

from tfrec.data.catalog import Catalog
from tfrec.data.ingest import Rows, Tables
from tfrec.data.interactions import Columns
from tfrec.data.reading import database
from tfrec.data.settings import DataSettings
from tfrec.data.sparse import SparseFeatures
from tfrec.data.tables import MISSING, MOST_VALUES, Attributes
from tfrec.errors import TfrecError, UsageError, nearest

PERIODS = {
    "hour": [str(hour) for hour in range(24)],
    "weekday": list(calendar.day_abbr),
    "month": list(calendar.month_abbr)[1:],
}
AT_ONCE = 2**18  # rows of which times are taken apart
NO_PRODUCT = np.iinfo(np.int64).min  # or "": pads lists of products in what is exported


def build(tables: Tables, config: DataSettings) -> Catalog:
    """Returns the users and products of a source.

    Raises:
        TfrecError: A product has the id that stands for none.
        UsageError: An unknown time zone, or year_bins where there are no years.
    """
    rows = tables.rows
    user_ids, product_ids = rows.ids["user"], rows.ids["product"]
    none = NO_PRODUCT if product_ids.dtype.kind == "i" else ""
    if none in product_ids:
        raise TfrecError(
            f"product {none!r}: in lists of products this id stands for none. Give it another id, "
            "or leave it out."
        )
    of_products = Attributes.of(config, "products")
    shown = [column for column in {*tables.shown, *of_products.text} if column in tables.products]
    products = tables.products.drop(columns=shown)
    if config.year_bins:
        products = products.assign(years=_years(tables.products, config.year_bins))
    features = encode(products)
    for column in of_products.text:
        given = tables.products[column]
        if column == "title":  # who has none is called by the id
            given = given.where(given != pd.Series(map(str, product_ids), given.index))
        features = features.beside(words(given))
    users = pd.DataFrame(index=user_ids) if tables.users is None else tables.users.loc[user_ids]
    timed = "timestamp" in rows.names
    latest = np.array([rows.latest()]) if timed else None
    _, context_names, default_context = context(latest, 1, config)
    return Catalog(
        name=config.dataset,
        user_ids=user_ids,
        product_ids=product_ids,
        products=tables.products.drop(columns=[*of_products.described]).reset_index(drop=True),
        features=features,
        user_features=encode(users),
        default_context=default_context,
        context_names=context_names,
        rated="rating" in rows.names,
        weighted="weight" in rows.names,
        time=config,
    )


def columns(rows: Rows, config: DataSettings) -> Columns:
    """Returns the columns of all rows, as in Dataset."""
    given = ["user", "product", *rows.names, *(["part"] if config.split == "files" else [])]
    found = rows.columns(given)
    found.setdefault("rating", np.ones(len(found["user"]), np.float32))
    times, count = found.get("timestamp"), len(found["user"])
    starts = range(0, max(count, 1), AT_ONCE)
    pieces = [None if times is None else times[start : start + AT_ONCE] for start in starts]
    found["context"] = np.concatenate(
        [
            context(piece, min(count - start, AT_ONCE), config)[0]
            for piece, start in zip(pieces, starts)
        ]
    )
    return found


def encode(table: pd.DataFrame) -> SparseFeatures:
    """Returns the features of each row of a table.

    Numbers as they are, strings one-hot, lists multi-hot (whole names, never substrings).
    """
    entries = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))]
    names: list[str] = []
    for column, values in table.items():
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.to_numpy(np.float32)
            rows = np.flatnonzero(numbers)
            entries.append((rows, np.full(len(rows), len(names)), numbers[rows]))
            names.append(str(column))
            continue
        rows, level, levels = _levels(values)
        entries.append((rows, level + len(names), np.ones(len(rows), np.float32)))
        names += [f"{column}={item}" for item in levels]
    rows, levels, numbers = (np.concatenate(parts) for parts in zip(*entries))
    return SparseFeatures.of_entries((rows, levels, numbers), len(table), names)


def words(texts: pd.Series) -> SparseFeatures:
    """Returns the tf-idf of the words of each text, None where there is none.

        tf-idf(row, word) = n (1 + ln((1 + N) / (1 + d))), each row divided by its length

    A word, in lower case, stands n times in the row's text, and in d of the N texts. Words of one
    text alone are left out, and of more than a million those of the fewest texts. Source: Salton
    and Buckley, "Term-weighting approaches in automatic text retrieval", 1988.
    """
    con = database()
    con.register("texts", pd.DataFrame({"row": np.arange(len(texts)), "text": texts.to_numpy()}))
    found = con.execute(
        r"""WITH words AS (
               SELECT row, unnest(regexp_extract_all(lower(text), '[\p{L}\p{M}\p{N}]+')) AS word
               FROM texts
           ), counted AS (
               SELECT row, word, count(*) AS n FROM words GROUP BY row, word
           ), kept AS (
               SELECT word, count(*) AS d FROM counted GROUP BY word HAVING d > 1
               ORDER BY d DESC, word LIMIT ?
           ), numbered AS (
               SELECT word, d, row_number() OVER (ORDER BY word) - 1 AS level FROM kept
           )
           SELECT row, level, n, d, word FROM counted JOIN numbered USING (word)""",
        [MOST_VALUES],
    )
    table = found.df()
    weight = table["n"] * (1 + np.log((1 + len(texts)) / (1 + table["d"])))
    names = table.drop_duplicates("level").sort_values("level")["word"]
    entries = table["row"].to_numpy(), table["level"].to_numpy(), weight.to_numpy()
    named = [f"{texts.name}={word}" for word in names]
    return SparseFeatures.of_entries(entries, len(texts), named).unit_rows()


def _levels(values: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which rows have which of the different texts, each pair once, and the texts."""
    if isinstance(values.iloc[0] if len(values) else "", list):
        rows = np.repeat(np.arange(len(values)), values.map(len))
        items = np.fromiter((str(item) for items in values for item in items), object, len(rows))
    else:
        rows, items = np.arange(len(values)), values.astype(str).to_numpy(object)
    level, levels = pd.factorize(items, sort=True)
    if len(levels) > MOST_VALUES:
        raise TfrecError(
            f"column {values.name}: {len(levels):,} different values; at most {MOST_VALUES:,} make "
            "a feature. Is it an id, or free text?"
        )
    keys = np.sort(rows * max(len(levels), 1) + level)
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return *np.divmod(keys, max(len(levels), 1)), levels


def _years(products: pd.DataFrame, width: int) -> pd.Series:
    """Returns the years that each product's `year` lies among, such as 1995-1999 for a width of
    5.
    """
    if "year" not in products or not pd.api.types.is_numeric_dtype(products["year"]):
        raise UsageError(
            f"--year_bins={width}: the products have no column year of numbers. Leave it at 0."
        )
    first = products["year"] // width * width
    return first.map(
        lambda year: MISSING if pd.isna(year) else f"{year:.0f}-{year + width - 1:.0f}"
    )


def context(
    timestamp: np.ndarray | None, rows: int, config: DataSettings
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """[rows, C], the C names, and the default [C].

    A Monday evening of no month, the latest date. Nothing where there is no time.
    """
    zone = config.time_zone
    if zone not in _time_zones():
        raise UsageError(
            f"--time_zone={zone}: there is no such time zone.{nearest(zone, _time_zones())}"
        )
    if timestamp is None:
        return np.zeros((rows, 0), np.float32), (), np.zeros(0, np.float32)
    local = pd.DatetimeIndex(pd.to_datetime(timestamp, unit="s", utc=True)).tz_convert(zone)
    evening = pd.DatetimeIndex(["2024-04-01 21:00"])  # a Monday
    columns, default = {}, {}  # type: dict[str, np.ndarray], dict[str, np.ndarray]
    for kind in config.context:
        columns |= _of_time(local, kind, config.context_encoding)
        at_default = _of_time(
            pd.DatetimeIndex([local.max()]) if kind == "date" else evening,
            kind,
            config.context_encoding,
        )
        default |= {name: values * (kind != "month") for name, values in at_default.items()}
    return (
        np.stack(list(columns.values()), axis=1),
        tuple(columns),
        np.concatenate(list(default.values())),
    )


@functools.cache  # it searches folders, and blocks of rows come here one by one
def _time_zones() -> set[str]:
    return zoneinfo.available_timezones()


def _of_time(local: pd.DatetimeIndex, kind: str, encoding: str) -> dict[str, np.ndarray]:
    """Returns {name: f32 [rows]}. daytime: 6 < hour < 20; weekend: Saturday, Sunday; date: decades
    since 2000; the others as sine and cosine or one column a value.
    """
    if kind == "daytime":
        return {kind: np.asarray((local.hour > 6) & (local.hour < 20), np.float32)}
    if kind == "weekend":
        return {kind: np.asarray(local.dayofweek >= 5, np.float32)}
    if kind == "date":
        return {
            kind: np.asarray(
                (local - pd.Timestamp(2000, 1, 1, tz=local.tz)).days / 3652.5, np.float32
            )
        }
    values = {"hour": local.hour, "weekday": local.dayofweek, "month": local.month - 1}[kind]
    return periodic(kind, np.asarray(values), encoding)


def periodic(kind: str, values: np.ndarray, encoding: str) -> dict[str, np.ndarray]:
    """Returns {name: f32 [rows]} of hours, weekdays or months, int [rows] from 0."""
    names = PERIODS[kind]
    if encoding == "categorical":
        return {
            f"{kind}={name}": (values == at).astype(np.float32) for at, name in enumerate(names)
        }
    angle = 2 * np.pi * values / len(names)
    return {
        f"{kind}_sin": np.sin(angle).astype(np.float32),
        f"{kind}_cos": np.cos(angle).astype(np.float32),
    }
