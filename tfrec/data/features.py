"""Tables -> Dataset: ids become positions, columns become numbers."""

import zoneinfo

import numpy as np
import pandas as pd

from tfrec.config import DataConfig
from tfrec.data.dataset import Dataset
from tfrec.data.sources import Tables
from tfrec.errors import TfrecError, UsageError, nearest


def build(tables: Tables, config: DataConfig) -> Dataset:
    """The Dataset of the tables; targets are the ratings until `with_scaling`.

    Raises:
        TfrecError: a user of the interactions is missing in the users table.
        UsageError: an unknown time zone.
    """
    rows = tables.interactions
    user_ids, user = np.unique(rows["user"].to_numpy(), return_inverse=True)
    product_ids = tables.products.index.to_numpy()
    product = pd.Index(product_ids).get_indexer(rows["product"])
    features, feature_names = encode(tables.products.drop(columns=list(tables.shown)))
    user_features, user_feature_names = np.zeros((len(user_ids), 0), np.float32), ()  # type: tuple[np.ndarray, tuple[str, ...]]
    if tables.users is not None:
        missing = np.setdiff1d(user_ids, tables.users.index)
        if len(missing):
            raise TfrecError(f"users table: no row for user {missing[0]} ({len(missing):,} missing). Add it.")
        user_features, user_feature_names = encode(tables.users.loc[user_ids])
    timestamp = rows["timestamp"].to_numpy() if "timestamp" in rows else None
    context, context_names = _context(timestamp, len(rows), config.time_zone)
    return Dataset(
        name=config.dataset,
        user=user.astype(np.int32),
        product=product.astype(np.int32),
        rating=rows["rating"].to_numpy(np.float32),
        timestamp=timestamp,
        part=rows["part"].to_numpy(np.int8) if "part" in rows else None,
        context=context,
        default_context=np.zeros(len(context_names), np.float32),  # Monday evening
        features=features,
        user_features=user_features,
        user_ids=user_ids,
        product_ids=product_ids,
        products=tables.products.reset_index(drop=True),
        context_names=context_names,
        feature_names=feature_names,
        user_feature_names=user_feature_names,
        offset=np.zeros(len(product_ids), np.float32),
        scale=np.ones(len(product_ids), np.float32),
    )


def encode(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """f32 [rows, F] and the F names: numbers as they are, strings one-hot, lists multi-hot (whole names, never substrings)."""
    columns = [np.zeros((len(table), 0), np.float32)]
    names: list[str] = []
    for column, values in table.items():
        if pd.api.types.is_numeric_dtype(values):
            columns.append(values.to_numpy(np.float32)[:, None])
            names.append(str(column))
            continue
        lists = values.map(lambda value: value if isinstance(value, list) else [value])
        row = np.repeat(np.arange(len(table)), lists.map(len))
        levels, level = np.unique(np.array([item for items in lists for item in items], dtype=str), return_inverse=True)
        hot = np.zeros((len(table), len(levels)), np.float32)
        hot[row, level] = 1
        columns.append(hot)
        names += [f"{column}={item}" for item in levels]
    return np.concatenate(columns, axis=1), tuple(names)


def _context(timestamp: np.ndarray | None, rows: int, time_zone: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """daytime (6 < hour < 20) and weekend (Saturday, Sunday), in the given time zone; nothing where there is no time."""
    if time_zone not in zoneinfo.available_timezones():
        raise UsageError(f"--time_zone={time_zone}: there is no such time zone.{nearest(time_zone, zoneinfo.available_timezones())}")
    if timestamp is None:
        return np.zeros((rows, 0), np.float32), ()
    local = pd.DatetimeIndex(pd.to_datetime(timestamp, unit="s", utc=True)).tz_convert(time_zone)
    daytime = (local.hour > 6) & (local.hour < 20)
    return np.stack([daytime, local.dayofweek >= 5], axis=1).astype(np.float32), ("daytime", "weekend")
