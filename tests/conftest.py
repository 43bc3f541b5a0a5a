"""Small real worlds that the tests share.

Two virtual devices from the start, so that any test can take the mirrored strategy.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tfrec.config import make_config
from tfrec.data import blocks, features, sources
from tfrec.data.dataset import Dataset
from tfrec.data.splits import Rows
from tfrec.training import strategies

strategies.make(make_config(strategy="mirrored", virtual_devices=2).train)


def make_dataset(
    num_users: int = 12,
    num_products: int = 9,
    rows: int = 60,
    seed: int = 0,
    user_features: int = 0,
) -> Dataset:
    """Distinct (user, product) pairs with ratings 0.5..5, timestamps with ties, two context and
    three product features.
    """
    random = np.random.RandomState(seed)
    pairs = random.permutation(num_users * num_products)[:rows]
    return Dataset(
        name="tiny",
        user=(pairs // num_products).astype(np.int32),
        product=(pairs % num_products).astype(np.int32),
        rating=(random.randint(1, 11, rows) / 2).astype(np.float32),
        timestamp=random.randint(0, rows // 2, rows).astype(np.int64),
        part=None,
        context=random.randint(0, 2, (rows, 2)).astype(np.float32),
        default_context=np.zeros(2, np.float32),
        features=random.randint(0, 2, (num_products, 3)).astype(np.float32),
        user_features=random.randint(0, 2, (num_users, user_features)).astype(np.float32),
        user_ids=np.arange(100, 100 + num_users),
        product_ids=np.arange(1000, 1000 + num_products),
        products=pd.DataFrame({"title": [f"Product {i}" for i in range(num_products)]}),
        context_names=("daytime", "weekend"),
        feature_names=("a", "b", "c"),
        user_feature_names=tuple(f"g{i}" for i in range(user_features)),
        offset=np.zeros(num_products, np.float32),
        scale=np.ones(num_products, np.float32),
    )


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="session")
def movielens() -> SimpleNamespace:
    """The built-in data set: tables and dataset."""
    config = make_config().data
    tables = sources.read(config)
    return SimpleNamespace(tables=tables, dataset=features.build(tables, config))


def replace(dataset: Dataset, **columns: object) -> Dataset:
    return dataclasses.replace(dataset, **columns)  # type: ignore[arg-type]


def all_rows(folder: Path) -> tuple[Dataset, Rows]:
    """What lies in a folder of blocks, with the rows of all users in memory, too."""
    dataset = blocks.open(folder)
    return blocks.with_rows(dataset, np.arange(dataset.num_users))
