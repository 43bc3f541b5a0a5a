"""Timestamps -> context, in the graph of the SavedModel."""

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data import features
from tfrec.data.settings import FeatureSettings
from tfrec.serving import ids

DAY = 86_400
FIRST, LAST = (
    -(2**31),
    2**33,
)  # 1901 to 2242: before and after, the zone's offset stays as it is there


class Clock(tf.Module):
    """Tells the context of a time as `features.context` does.

    The changes of the zone's offset are kept in a table.
    """

    def __init__(self, config: FeatureSettings) -> None:
        super().__init__()
        self._kinds = config.context
        changes, offsets = offset_changes(config.time_zone)
        self._changes, self._offsets = ids.variable(changes), ids.variable(offsets)
        self._millennium = int(pd.Timestamp(2000, 1, 1, tz=config.time_zone).timestamp())
        self._periods = {}
        for kind in features.PERIODS.keys() & config.context:
            columns = features.periodic(
                kind, np.arange(len(features.PERIODS[kind])), config.context_encoding
            )
            self._periods[kind] = ids.variable(np.stack(list(columns.values()), axis=1))

    def __call__(self, timestamp: tf.Tensor) -> tf.Tensor:
        """int64 [B], seconds since 1970 -> f32 [B, C]."""
        local = timestamp + tf.gather(
            self._offsets, tf.searchsorted(self._changes, timestamp, side="right")
        )
        day, hour = local // DAY, local % DAY // 3600
        weekday = (day + 3) % 7  # 1970 began with a Thursday
        at = {"hour": hour, "weekday": weekday, "month": _month(day)}
        decades = tf.cast((timestamp - self._millennium) // DAY, tf.float64) / 3652.5
        numbers = {"daytime": (hour > 6) & (hour < 20), "weekend": weekday >= 5, "date": decades}
        columns = [
            tf.gather(self._periods[kind], at[kind])
            if kind in at
            else tf.cast(numbers[kind], tf.float32)[:, None]
            for kind in self._kinds
        ]
        return tf.concat(columns, axis=1)


def _month(day: tf.Tensor) -> tf.Tensor:
    """Returns the month, 0 to 11, of days since 1970 int64 [B], in the Gregorian calendar, whose
    years are counted from the first of March.
    """
    of_era = (day + 719_468) % 146_097  # 400 years have so many days
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return ((5 * of_year + 2) // 153 + 2) % 12


def offset_changes(zone: str) -> tuple[np.ndarray, np.ndarray]:
    """When the offset of a time zone changes, int64 [n], and its seconds before, between and after,
    int64 [n + 1].
    """
    days = np.arange(FIRST, LAST, DAY, dtype=np.int64)
    offsets = _offset(days, zone)
    at = np.flatnonzero(np.diff(offsets))
    before, after = days[at], days[at + 1]
    while (after - before > 1).any():  # to the second
        middle = (before + after) // 2
        same = _offset(middle, zone) == offsets[at]
        before, after = np.where(same, middle, before), np.where(same, after, middle)
    return after, offsets[np.append(0, at + 1)]


def _offset(seconds: np.ndarray, zone: str) -> np.ndarray:
    utc = pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", utc=True))
    local = utc.tz_convert(zone).tz_localize(None) - utc.tz_localize(None)
    return np.rint(local.total_seconds()).astype(np.int64)
