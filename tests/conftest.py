"""Small real worlds that the tests share.

Two virtual devices from the start, so that any test can take the mirrored strategy.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrec import losses
from tfrec.data import sources
from tfrec.data.batches import feature_tables, with_features
from tfrec.data.catalog import Catalog
from tfrec.data.dataset import Dataset
from tfrec.data.disk import open_folder
from tfrec.data.interactions import Interactions, Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.sparse import SparseFeatures
from tfrec.experiments import config as run_config
from tfrec.experiments import parts
from tfrec.experiments.config import Config, make_config
from tfrec.models.base import Recommender
from tfrec.models.output import Output
from tfrec.settings import fields
from tfrec.training import strategies

strategies.make("mirrored", 2)
# make test draws the same examples each time, make test-long others
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the long files first, so that all workers end at about the same time."""
    items.sort(key=lambda item: "end_to_end" not in item.nodeid)


def some_config(**settings) -> Config:
    """The settings of a run; of those given, the ones that its parts have. Without a refit, which
    few tests are about.
    """
    settings = {"refit": "none"} | settings
    parts = run_config.parts_of(settings).values()
    known = {name for part in parts for name in fields(part)}
    return make_config(**{name: value for name, value in settings.items() if name in known})


def prepared_loss(config: Config, train: Interactions) -> losses.Loss:
    """The loss of the settings, prepared for the training rows."""
    with parts.dashes():
        loss = parts.make_loss(config)
        loss.prepare(train)
    return loss


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
    attributes = [f"g{i}" for i in range(user_features)]
    columns = {
        "user": (pairs // num_products).astype(np.int32),
        "product": (pairs % num_products).astype(np.int32),
        "rating": (random.randint(1, 11, rows) / 2).astype(np.float32),
        "timestamp": random.randint(0, rows // 2, rows).astype(np.int64),
        "context": random.randint(0, 2, (rows, 2)).astype(np.float32),
    }
    catalog = Catalog(
        name="tiny",
        user_ids=np.arange(100, 100 + num_users),
        product_ids=np.arange(1000, 1000 + num_products),
        products=pd.DataFrame({"title": [f"Product {i}" for i in range(num_products)]}),
        features=sparse(random.randint(0, 2, (num_products, 3)), "abc"),
        user_features=sparse(random.randint(0, 2, (num_users, user_features)), attributes),
        default_context=np.zeros(2, np.float32),
        context_names=("daytime", "weekend"),
    )
    return Dataset(catalog, columns)


def sparse(table: np.ndarray | SparseFeatures, names=None) -> SparseFeatures:
    """Features from a dense table; names: None for "0", "1" and so on."""
    if isinstance(table, SparseFeatures):
        return table
    return SparseFeatures.from_dense(np.asarray(table, np.float32), names)


def set_features(dataset: Dataset, rows, values, side: str = "user_features") -> None:
    """Sets some rows of the features in place."""
    before = getattr(dataset.catalog, side)
    table = before.dense()
    table[rows] = values
    object.__setattr__(dataset.catalog, side, sparse(table, before.names))


def rows_of(user, product, rating, shape: tuple[int, int], **facts) -> MemoryInteractions:
    """Rows int [n], int [n] and f32 [n] of so many users and products; facts: of the catalog."""
    num_users, num_products = shape
    of_catalog = {
        "features": np.zeros((num_products, 0)),
        "user_features": np.zeros((num_users, 0)),
        "default_context": np.zeros(0, np.float32),
        "context_names": (),
    } | facts
    for name in ("features", "user_features"):
        of_catalog[name] = sparse(of_catalog[name])
    catalog = Catalog(
        name="rows",
        user_ids=np.arange(num_users),
        product_ids=np.arange(num_products),
        products=pd.DataFrame({"title": [f"Product {i}" for i in range(num_products)]}),
        **of_catalog,
    )
    columns = {
        "user": np.asarray(user, np.int32),
        "product": np.asarray(product, np.int32),
        "rating": np.asarray(rating, np.float32),
        "context": np.zeros((len(user), len(catalog.default_context)), np.float32),
    }
    return MemoryInteractions(catalog, columns)


def with_output(model: Recommender, train: MemoryInteractions, scaling: str = "none"):
    """The model, whose scores mean what those of one mean that was trained on scaled targets."""
    loss = losses.SquaredError(target_scaling=scaling)
    loss.prepare(train)
    model.output = Output(loss, train)
    return model


def make_split(dataset: Dataset, train=None, validation=None, test=None) -> Split:
    """The parts by row numbers int [n]; train: None for all rows, the others for none."""
    nobody, rows = np.zeros(0, np.int64), dataset.interactions
    every = np.arange(len(dataset))
    return Split(
        rows.take(every if train is None else train),
        rows.take(nobody if validation is None else validation),
        rows.take(nobody if test is None else test),
    )


def recency_of(rows: MemoryInteractions, recency: float) -> np.ndarray:
    """What each user's products count when they are scored, [U, P]; each user's mean is 1."""
    x = np.zeros((rows.num_users, rows.num_products))
    for user in range(rows.num_users):
        mine = np.flatnonzero(rows.user == user)
        for at in mine:
            later = np.sum(rows.timestamp[mine] > rows.timestamp[at])
            now = 1 + recency * np.exp(-later / 10)
            x[user, rows.product[at]] = max(x[user, rows.product[at]], now)
    return x / np.maximum(x.sum(axis=1) / np.maximum((x > 0).sum(axis=1), 1), 1)[:, None]


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="session")
def movielens() -> SimpleNamespace:
    """The built-in data set: tables and dataset."""
    config = make_config().data
    tables = sources.read(config)
    return SimpleNamespace(tables=tables, dataset=Dataset.from_tables(tables, config))


def replace(dataset: Dataset, **changes: object) -> Dataset:
    """A copy with other columns of its rows (None: without them) or other facts of its catalog."""
    known = {field.name for field in dataclasses.fields(Catalog)}
    of_catalog = {name: value for name, value in changes.items() if name in known}
    for name in {"features", "user_features"} & of_catalog.keys():
        of_catalog[name] = sparse(of_catalog[name])
    columns = dataset.columns | {n: value for n, value in changes.items() if n not in known}
    columns = {name: column for name, column in columns.items() if column is not None}
    return Dataset(dataclasses.replace(dataset.catalog, **of_catalog), columns)


def all_rows(folder: Path) -> Split:
    """What lies in a folder of blocks, with the rows of all users in memory."""
    split = open_folder(folder)
    everyone = np.arange(split.catalog.num_users)
    return Split(*(part.of_users(everyone) for part in split.parts()))


def batch_of(rows: MemoryInteractions) -> dict[str, tf.Tensor]:
    """All of the rows as one batch."""
    columns = {name: tf.constant(column) for name, column in rows.batch_columns().items()}
    return with_features(columns, feature_tables(rows.catalog))
