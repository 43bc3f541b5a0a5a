"""Dataset: the arrays and names that everything downstream reads."""

import dataclasses
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from tfrec.data.blocks import Stored

COLUMNS = ("user", "product", "context", "day")  # what a batch has of its rows


@dataclass(frozen=True)
class Dataset:
    """N interactions of U users with P products.

    user, product: int32 [N]. rating: f32 [N]. timestamp: int64 [N] seconds, or None. part: int8 [N]
    (see sources.PARTS), or None. context: f32 [N, C]. default_context: f32 [C], what serving fills
    in. features: f32 [P, F], of products. user_features: f32 [U, G] (G may be 0). user_ids [U],
    product_ids [P]: raw ids, int64 or str; the position is the index. products: table [P] for
    people (title, genres, ...). offset, scale: f32 [P]; the target of a rating r of product p is (r
    - offset[p]) / scale[p]. rated: are there ratings? Else they are all 1. stored: all rows, where
    they are on disk; then N counts those that are in memory, too.
    """

    name: str
    user: np.ndarray
    product: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None
    part: np.ndarray | None
    context: np.ndarray
    default_context: np.ndarray
    features: np.ndarray
    user_features: np.ndarray
    user_ids: np.ndarray
    product_ids: np.ndarray
    products: pd.DataFrame
    context_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    user_feature_names: tuple[str, ...]
    offset: np.ndarray
    scale: np.ndarray
    rated: bool = True
    stored: "Stored | None" = None

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_products(self) -> int:
        return len(self.product_ids)

    @property
    def day(self) -> np.ndarray | None:
        """Each interaction's day since 1970 (UTC), int32 [N], or None."""
        return None if self.timestamp is None else (self.timestamp // 86_400).astype(np.int32)

    def __len__(self) -> int:
        return len(self.user)

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """user, product, context, and day where there are timestamps, of `rows`."""
        return {
            name: column[rows] for name in COLUMNS if (column := getattr(self, name)) is not None
        }

    def fingerprint(self) -> int:
        """A number that changes with the interactions and the features."""
        if self.stored:
            return self.stored.fingerprint
        total = 0
        for array in (
            self.user,
            self.product,
            self.rating,
            self.context,
            self.features,
            self.user_features,
        ):
            total = zlib.crc32(array.tobytes(), total)
        return total

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """The scaled ratings of `rows`, f32 [len(rows)]."""
        return self.scaled(self.rating[rows], self.product[rows])

    def scaled(self, rating: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Targets of ratings f32 [n] of products int [n].

        A product whose training ratings are all equal has target 0.5.
        """
        scale = self.scale[product]
        scaled = (rating - self.offset[product]) / np.where(scale == 0, 1, scale)
        return np.where(scale == 0, 0.5, scaled).astype(np.float32)

    def worth(self, rows: np.ndarray, power: float) -> np.ndarray:
        """(rating / highest rating)^power of `rows`, divided by its mean, f32 [len(rows)].

        Never 0, which is what padding weighs.
        """
        rating = np.maximum(self.rating[rows], 0)
        worth = (rating / max(rating.max(), 1e-9)) ** power
        return np.maximum(worth / max(worth.mean(), 1e-9), 1e-9).astype(np.float32)

    def unscale(self, target: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Targets back in rating units; the inverse of `targets`. Shapes [...] and [...]."""
        return target * self.scale[product] + self.offset[product]

    def with_scaling(self, how: str, rows: np.ndarray) -> "Dataset":
        """A copy whose targets are scaled by what the training `rows` show.

        how: none | standard (mean 0 and deviation 1) | product_minmax (each product's ratings to
        [0.5, 1]) | global_minmax (all ratings to [0.5, 1]). A product without training rows takes
        the global minimum and maximum.
        """
        if how == "none":
            zeros = np.zeros(self.num_products, np.float32)
            return dataclasses.replace(self, offset=zeros, scale=zeros + 1)
        rating, product = self.rating[rows], self.product[rows]
        if how == "standard":
            return self.standardised(rating.mean(dtype=np.float64), rating.std(dtype=np.float64))
        low, high = (
            np.full(self.num_products, rating.min()),
            np.full(self.num_products, rating.max()),
        )
        if how == "product_minmax":
            seen = np.unique(product)
            low[seen], high[seen] = np.inf, -np.inf
            np.minimum.at(low, product, rating)
            np.maximum.at(high, product, rating)
        scale = 2 * (high - low)
        return dataclasses.replace(
            self, scale=scale.astype(np.float32), offset=(low - scale / 2).astype(np.float32)
        )

    def standardised(self, mean: float, deviation: float) -> "Dataset":
        """A copy whose targets are (rating - mean) / deviation.

        Where all ratings are equal, their deviation counts as 1.
        """
        ones = np.ones(self.num_products, np.float32)
        return dataclasses.replace(
            self, offset=ones * np.float32(mean), scale=ones * np.float32(deviation or 1)
        )
