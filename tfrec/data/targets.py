"""Target scaling: what training learns in place of the ratings."""

from dataclasses import dataclass

import numpy as np

SCALINGS = ("standard", "none", "product_minmax", "global_minmax")


@dataclass(frozen=True, eq=False)
class RatingStats:
    """What is known of the ratings of some rows.

    Args:
        mean, deviation: Of all rows.
        low, high: Least and greatest rating of each product, f32 [P]; inf and -inf without rows.
    """

    mean: float
    deviation: float
    low: np.ndarray
    high: np.ndarray

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest rating of all."""
        return float(self.low.min(initial=np.inf)), float(self.high.max(initial=-np.inf))


@dataclass(frozen=True, eq=False)
class Scaling:
    """The target of a rating r of product p is (r - offset[p]) / scale[p]; f32 [P] each.

    A product whose training ratings are all equal has scale 0 and target 0.5.
    """

    offset: np.ndarray
    scale: np.ndarray

    def to_targets(self, rating: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Targets f32 [n] of ratings f32 [n] of products int [n]."""
        scale = self.scale[product]
        scaled = (rating - self.offset[product]) / np.where(scale == 0, 1, scale)
        return np.where(scale == 0, 0.5, scaled).astype(np.float32)

    def to_ratings(self, target: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Targets back in rating units; shapes [...] and [...]."""
        return target * self.scale[product] + self.offset[product]


def identity(num_products: int) -> Scaling:
    """Targets are the ratings."""
    zeros = np.zeros(num_products, np.float32)
    return Scaling(zeros, zeros + 1)


def target_range(scaling: Scaling, stats: RatingStats) -> tuple[float, float]:
    """Least and greatest target of rows with these ratings."""
    seen = np.flatnonzero(stats.low <= stats.high)
    low, high = (scaling.to_targets(edge[seen], seen) for edge in (stats.low, stats.high))
    return float(low.min(initial=np.inf)), float(high.max(initial=-np.inf))


def fit(kind: str, stats: RatingStats) -> Scaling:
    """Returns the scaling that some training rows call for.

    Args:
        kind: none; standard, to mean 0 and deviation 1; product_minmax, each product's ratings to
            [0.5, 1]; global_minmax, all ratings to [0.5, 1].
        stats: Of the training rows. A product without rows takes the minimum and maximum of all;
            where all ratings are equal, their deviation counts as 1.
    """
    ones = np.ones(len(stats.low), np.float32)
    if kind == "none":
        return identity(len(stats.low))
    if kind == "standard":
        return Scaling(ones * np.float32(stats.mean), ones * np.float32(stats.deviation or 1))
    least, greatest = stats.range
    low, high = ones * np.float32(least), ones * np.float32(greatest)
    if kind == "product_minmax":
        known = stats.low <= stats.high
        low, high = np.where(known, stats.low, low), np.where(known, stats.high, high)
    scale = 2 * (high - low)
    return Scaling((low - scale / 2).astype(np.float32), scale.astype(np.float32))
