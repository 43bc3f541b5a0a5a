"""The sets that papers measure on keep their ids, features, rows and splits, whatever reads them.

golden.json holds what was read before DuckDB did it. A difference here is a fault, not an update.
"""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import some_config
from tests.data import editions
from tests.data.test_tfds_sets import Small
from tfrec.data import prepare
from tfrec.data.dataset import Dataset
from tfrec.data.disk import open_folder
from tfrec.data.interactions import Interactions, Split
from tfrec.data.settings import SPLITS
from tfrec.data.sources.synthetic import SyntheticData
from tfrec.experiments import loading

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
HOW = [how for how in SPLITS if how not in ("auto", "files")]
CONTEXT = ("daytime", "weekend", "hour", "date")


def digest(*arrays: object) -> str:
    """A number for arrays, their types and shapes among it."""
    total = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return total.hexdigest()[:16]


def of_rows(rows: Interactions) -> str:
    columns = rows.columns()
    names = ("user", "product", "rating", "timestamp", "context")
    return digest(*(columns[name] for name in names))


def of_split(split: Split) -> list[str]:
    return [of_rows(part) for part in split.parts()]


def of_catalog(split: Split | Dataset) -> dict[str, str]:
    catalog = split.catalog
    return {
        "ids": digest(catalog.user_ids, catalog.product_ids),
        "features": digest(catalog.features.dense(), catalog.user_features.dense()),
        "names": digest(np.array([*catalog.features.names, *catalog.user_features.names], object)),
        "products": digest(np.array(catalog.products.astype(str).to_numpy(), object)),
        "context": digest(catalog.default_context),
    }


def found(splits: list[str] = HOW, **settings: object) -> dict[str, object]:
    """What there is of a data set: its catalog, and the rows of each split."""
    data, made = loading.read(some_config(**settings)), {}
    for how in splits:
        config = some_config(**settings, split=how, split_seed=3)
        made[how] = of_split(data.split_by(config.data))
    return of_catalog(data) | {"rows": of_rows(data.interactions)} | made


@functools.cache
def larger() -> tuple[dict, list, dict]:
    """Products, ratings and users from the built-in set, for the layouts of the others."""
    data = loading.read(some_config(dataset="latest-small"))
    catalog, columns = data.catalog, data.columns
    genres = [row["genres"] for _, row in catalog.products.iterrows()]
    products = {
        int(key): (title.replace("::", ":").replace("|", "/"), [g for g in of if g != "IMAX"])
        for key, title, of in zip(catalog.product_ids, catalog.products["title"], genres)
    }
    products = dict(list(products.items())[:2_000])
    known = np.isin(catalog.product_ids[columns["product"]], list(products))
    rows = [
        (int(catalog.user_ids[user]), int(catalog.product_ids[product]), float(rating), int(time))
        for user, product, rating, time in zip(
            *(columns[name][known] for name in ("user", "product", "rating", "timestamp"))
        )
    ][:4_000]
    rows += rows[100:140]  # some twice
    users = {user: (18 + user % 50, "MF"[user % 2], f"work {user % 7}") for user, *_ in rows}
    return products, rows, users


def test_latest_small():
    assert found(dataset="latest-small", context=CONTEXT) == GOLDEN["latest-small"]


@pytest.mark.parametrize("name", ["100k", "1m", "10m"])
def test_layouts(tmp_path, name):
    products, rows, users = larger()
    if name == "1m":
        products = {
            key: (title.encode("latin-1", "replace").decode("latin-1"), of)
            for key, (title, of) in products.items()
        }
    if name == "100k":
        known = set(editions.GENRES_100K.split("|"))
        products = {
            key: (
                title.encode("latin-1", "replace").decode("latin-1"),
                [g for g in of if g in known],
            )
            for key, (title, of) in products.items()
        }
    for file, content in editions.edition(name, products, rows, users).items():
        (tmp_path / file).write_bytes(content)
    assert found(dataset=name, data_dir=str(tmp_path), context=CONTEXT) == GOLDEN[name]


def test_tfds(tmp_path):
    Small(data_dir=tmp_path).download_and_prepare()
    assert found([], dataset="tfds:small", data_dir=str(tmp_path)) == GOLDEN["tfds"]


@pytest.mark.parametrize("how", ["user_temporal", "random"])
def test_synthetic(tmp_path, how):
    config = some_config(dataset="synthetic", split=how, users="200", products="100").data
    prepare.prepare(config, tmp_path / "made", SyntheticData(200, 100, 3_000, 5))
    split = open_folder(tmp_path / "made")
    assert of_catalog(split) | {how: of_split(split)} == GOLDEN[f"synthetic {how}"]
