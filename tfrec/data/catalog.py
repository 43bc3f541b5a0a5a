"""Catalog: who the users are and what the products are, without their interactions."""

import dataclasses
import functools
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrec.data.settings import FeatureSettings
from tfrec.data.sparse import SparseFeatures


@dataclass(frozen=True, eq=False)
class Catalog:
    """U users and P products.

    Args:
        name: Name of the data set, for people.
        user_ids, product_ids: Raw ids [U], [P], int64 or str; the position is the index.
        products: Table [P] for people (title, genres, ...).
        features: Product features [P, F]; F may be 0.
        user_features: User features [U, G]; G may be 0.
        default_context: Context that serving fills in, f32 [C]; C is 0 without timestamps.
        context_names: Names of the C columns.
        rated: Whether there are ratings; else they are all 1.
        weighted: Whether rows have weights.
        time: How a timestamp tells the context.
    """

    name: str
    user_ids: np.ndarray
    product_ids: np.ndarray
    products: pd.DataFrame
    features: SparseFeatures
    user_features: SparseFeatures
    default_context: np.ndarray
    context_names: tuple[str, ...]
    rated: bool = True
    weighted: bool = False
    time: FeatureSettings = dataclasses.field(default_factory=FeatureSettings)

    def __repr__(self) -> str:
        return f"{self.name}: {self.num_users:,} users, {self.num_products:,} products"

    @property
    def num_users(self) -> int:
        """Returns the number of users, those without rows included."""
        return len(self.user_ids)

    @property
    def num_products(self) -> int:
        """Returns the number of products, those without rows included."""
        return len(self.product_ids)

    @functools.cached_property
    def fingerprint(self) -> int:
        """Returns a number that changes with the features."""
        both = (self.features.fingerprint, self.user_features.fingerprint)
        return zlib.crc32(repr(both).encode())
