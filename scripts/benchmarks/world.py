"""Made-up data of a known size, the same for every side of a comparison."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tfrec.data.catalog import Catalog
from tfrec.data.memory import MemoryInteractions
from tfrec.data.sparse import SparseFeatures

USERS, PRODUCTS = 6_040, 3_706  # of ml-1m
FEATURES, CONTEXT, RANK = 18, 2, 8
DESCRIBED = 20_000  # products


def structured(
    rows: int, num_users: int = USERS, num_products: int = PRODUCTS, seed: int = 0
) -> MemoryInteractions:
    """Returns ratings from 0.5 to 5: mean + biases + <taste, quality> of rank 8 + noise; users by a
    power law, products by r^3.
    """
    random = np.random.default_rng(seed)
    taste, quality = random.normal(size=(num_users, RANK)), random.normal(size=(num_products, RANK))
    user_bias, product_bias = random.normal(0, 0.4, num_users), random.normal(0, 0.4, num_products)
    features = random.random((num_products, FEATURES)) < 0.1
    user = (num_users * random.random(rows) ** 2).astype(np.int32)
    product = (num_products * random.random(rows) ** 3).astype(np.int32)
    interaction = 0.6 / np.sqrt(RANK) * np.einsum("nr,nr->n", taste[user], quality[product])
    rating = (
        3.5 + user_bias[user] + product_bias[product] + interaction + random.normal(0, 0.7, rows)
    )
    rating = np.clip(np.round(2 * rating) / 2, 0.5, 5)
    return _rows(user, product, rating, num_users, features, random.random((rows, CONTEXT)) < 0.5)


def described(rows: int, values: int, most: int, seed: int = 0) -> MemoryInteractions:
    """20,000 products drawn uniformly by 5,000 users, each with 1 to `most` of so many values of a
    column; 0 values: without features.
    """
    random = np.random.default_rng(seed)
    user, product = random.integers(5_000, size=rows), random.integers(DESCRIBED, size=rows)
    plain = _rows(
        user.astype(np.int32),
        product.astype(np.int32),
        np.ones(rows),
        5_000,
        np.zeros((DESCRIBED, 0)),
        np.zeros((rows, 0)),
    )
    if not values:
        return plain
    sizes = random.integers(1, most + 1, DESCRIBED)
    entries = (
        np.repeat(np.arange(DESCRIBED), sizes),
        random.integers(values, size=sizes.sum()),
        np.ones(sizes.sum(), np.float32),
    )
    features = SparseFeatures.of_entries(entries, DESCRIBED, [f"v{i}" for i in range(values)])
    return MemoryInteractions(replace(plain.catalog, features=features), plain.columns())


def uniform(rows: int, size: int, seed: int = 0) -> MemoryInteractions:
    """`size` users and as many products, drawn uniformly, without features.

    What shows how a step grows with its tables.
    """
    random = np.random.default_rng(seed)
    user, product = random.integers(size, size=(2, rows), dtype=np.int32)
    return _rows(
        user, product, random.uniform(0.5, 5, rows), size, np.zeros((size, 0)), np.zeros((rows, 0))
    )


def _rows(
    user: np.ndarray,
    product: np.ndarray,
    rating: np.ndarray,
    num_users: int,
    features: np.ndarray,
    context: np.ndarray,
) -> MemoryInteractions:
    num_products = len(features)
    catalog = Catalog(
        name="benchmark",
        user_ids=np.arange(1, num_users + 1),
        product_ids=np.arange(1, num_products + 1),
        products=pd.DataFrame({"title": np.arange(1, num_products + 1).astype(str)}),
        features=SparseFeatures.from_dense(features),
        user_features=SparseFeatures.from_dense(np.zeros((num_users, 0))),
        default_context=np.zeros(context.shape[1], np.float32),
        context_names=tuple(f"c{i}" for i in range(context.shape[1])),
    )
    columns = {"user": user, "product": product, "rating": rating.astype(np.float32)}
    return MemoryInteractions(catalog, columns | {"context": context.astype(np.float32)})
