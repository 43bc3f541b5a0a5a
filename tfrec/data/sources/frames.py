"""Frames that the user brings -> Tables."""

import numpy as np
import pandas as pd

from tfrec.data import ingest
from tfrec.data.ingest import Tables
from tfrec.data.reading import LARGEST, LATEST, UNITS, database, enough
from tfrec.data.settings import INTERACTION, NO_WEIGHT, WEIGHT, DataSettings
from tfrec.data.tables import SIDES, Attributes, check_events
from tfrec.errors import TfrecError, UsageError, nearest


def read(
    interactions: pd.DataFrame,
    products: pd.DataFrame | None,
    users: pd.DataFrame | None,
    config: DataSettings,
) -> Tables:
    """Returns the tables of frames.

    Raises:
        UsageError: A column is not there.
        TfrecError: A value is missing or malformed.
    """
    notes: list[str] = []
    frame = _interactions(interactions, config, notes)
    tables: dict[str, pd.DataFrame | None] = {}
    of = {side: Attributes.of(config, f"{side}s") for side in SIDES}
    for side, given in (("product", products), ("user", users)):
        columns = config.feature_columns(f"{side}s")
        if given is None and columns:
            kind = config.kind_of(f"{side}s", columns[0])
            raise UsageError(f"{side}s_{kind}={columns[0]}: there is no frame {side}s.")
        tables[side] = None if given is None else _table(f"{side}s", given, config)
    with enough(config.memory_limit):
        rows = ingest.of_frame(database(memory=config.memory_limit), frame, tables)
        rows.refine(config, "interactions", "interactions, row {:,}".format, notes)
    return ingest.with_tables(rows, tables, of, notes)


def _interactions(frame: pd.DataFrame, config: DataSettings, notes: list[str]) -> pd.DataFrame:
    found: dict[str, np.ndarray] = {}
    for name in INTERACTION:
        column = getattr(config, f"{name}_column")
        default = getattr(DataSettings(), f"{name}_column")
        if column not in frame and name in ("rating", "timestamp") and column == default:
            continue
        where = f"interactions, column {column}"
        values = _column(frame, column, f"{name}_column")
        if name in ("user", "product"):
            found[name] = _ids(values, where)
        elif name == "rating":
            found[name] = _numbers(values, where).astype(np.float32)
        else:
            found[name] = _seconds(values, where)
    rows = pd.DataFrame(found, index=pd.RangeIndex(len(frame)))
    if config.weight_column:
        values = _column(frame, config.weight_column, "weight_column")
        where = f"interactions, column {config.weight_column}"
        rows["weight"] = _numbers(values, where)
        wrong = (rows["weight"] < WEIGHT[0]) | (rows["weight"] > WEIGHT[1])
        _check(wrong, values, where, NO_WEIGHT)
    if config.event_column:
        events = _texts(_column(frame, config.event_column, "event_column"))
        said = check_events("interactions", set(events), config.weight_of, "event_weights")
        weights = np.array([config.weight_of.get(each, 0.0) for each in events])
        rows["weight"] = weights * rows.get("weight", 1.0)
        rows = rows[weights > 0]
        _left_out(weights == 0, "rows of other events", notes)
        notes += said
    if config.missing_ratings and "rating" in rows:
        missing = rows["rating"].isin(np.array(config.missing_ratings, np.float32))
        _left_out(missing, "rows without a rating", notes)
        rows = rows[~missing]
    return rows


def _left_out(rows: np.ndarray | pd.Series, what: str, notes: list[str]) -> None:
    if count := int(rows.sum()):
        notes.append(f"interactions: left out {count:,} {what}")


def _table(side: str, frame: pd.DataFrame, config: DataSettings) -> pd.DataFrame:
    """Attributes by id; None or NaN where one is missing."""
    of = Attributes.of(config, side)
    column = getattr(config, f"{side}_id") or getattr(config, f"{side.rstrip('s')}_column")
    index = pd.Index(_ids(_column(frame, column, f"{side}_id"), f"{side}, column {column}"))
    again = np.flatnonzero(index.duplicated())
    if len(again):
        raise TfrecError(
            f"{side}, row {again[0]:,}: {column} {index[again[0]]} stands there twice."
        )
    found: dict[str, object] = {}
    if side == "products":
        title = config.products_title
        asked = title != DataSettings().products_title or "title" in of.text or title in frame
        flag = "products_text" if title in config.products_text else "products_title"
        found["title"] = _texts(_column(frame, title, flag)) if asked else None
    for name in of.categorical + of.described:
        found[name] = _texts(_column(frame, name, f"{side}_{config.kind_of(side, name)}"))
    for name in of.multivalued:
        values = _column(frame, name, f"{side}_multivalued")
        found[name] = [_items(value, config.value_separator) for value in values]
    for name in of.numeric:
        values = _column(frame, name, f"{side}_numeric")
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
        wrong = values.notna() & ~np.isfinite(numbers)
        _check(wrong, values, f"{side}, column {name}", "is not a number.")
        found[name] = numbers.to_numpy()
    return pd.DataFrame(found, index=index)


def _column(frame: pd.DataFrame, column: str, argument: str) -> pd.Series:
    if column not in frame:
        raise UsageError(
            f"{argument}={column}: the frame has the columns {', '.join(map(str, frame))}."
            f"{nearest(column, map(str, frame))}"
        )
    return frame[column]


def _ids(values: pd.Series, where: str) -> np.ndarray:
    """int64 where all are whole numbers, else texts."""
    _check(values.isna(), values, where, "an id is missing.")
    if pd.api.types.is_integer_dtype(values):
        return values.to_numpy(np.int64)
    if pd.api.types.is_float_dtype(values) and (values % 1 == 0).all():
        return values.to_numpy().astype(np.int64)
    return values.map(str).to_numpy(object)


def _numbers(values: pd.Series, where: str) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce")
    _check(~(np.abs(numbers.astype(float)) <= LARGEST), values, where, "is not a number.")
    return numbers.to_numpy(float)


def _seconds(values: pd.Series, where: str) -> np.ndarray:
    """Seconds since 1970, of numbers or of dates."""
    if pd.api.types.is_datetime64_any_dtype(values):
        _check(values.isna(), values, where, "a time is missing.")
        return values.astype("int64").to_numpy() // _units(values)
    if pd.to_numeric(values, errors="coerce").isna().all() and values.notna().any():
        dates = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
        wrong = "is not a time in ISO 8601. Make dates of them by pandas.to_datetime."
        _check(dates.isna(), values, where, wrong)
        return dates.astype("int64").to_numpy() // _units(dates)
    seconds = _numbers(values, where)
    largest = np.abs(seconds).max(initial=0)
    unit = next((unit for unit in UNITS if largest < LATEST * unit), 1)
    _check(np.abs(seconds) >= LATEST * unit, values, where, "is not a time since 1970.")
    return (seconds // unit).astype(np.int64)


def _units(values: pd.Series) -> int:
    """Returns how many units of the dates make a second."""
    unit = values.dt.unit
    return {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]


def _check(bad: object, values: pd.Series, where: str, complaint: str) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        value = values.iloc[rows[0]]
        value = value.item() if isinstance(value, np.generic) else value
        raise TfrecError(f"{where}, row {rows[0]:,}: {value!r} {complaint}")


def _texts(values: pd.Series) -> np.ndarray:
    texts = values.map(lambda value: str(value).strip(), na_action="ignore").astype(object)
    return texts.where(texts.notna() & (texts != ""), None).to_numpy(object)


def _items(value: object, separator: str) -> list[str]:
    if isinstance(value, list | tuple | set | np.ndarray):
        return list(dict.fromkeys(map(str, value)))
    if value is None or value != value:
        return []
    return list(dict.fromkeys(each.strip() for each in str(value).split(separator) if each.strip()))
