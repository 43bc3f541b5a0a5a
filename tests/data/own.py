"""A small data set of one's own.

Five ratings by three users of three products, and a table of four products and one of users.
"""

from pathlib import Path

import pandas as pd

from tests.conftest import some_config
from tfrec.experiments import loading

RATINGS = (
    "user,product,rating,timestamp\n"
    "u1,p1,4,1500000000\nu1,p2,3.5,1500000100\nu2,p1,1,1500086400\nu2,p3,5,1500172800\n"
    "u3,p2,2,1500000000\n"
)
PRODUCTS = (
    "product,title,brand,tags,price\n"
    "p1,First,acme,red|blue,10\np2,Second,,blue,\np3,Third,bolt,,30\np4,Fourth,acme,green,20\n"
)
USERS = "user,age,gender\nu1,30,f\nu2,,m\nu3,50,\n"
FEATURES = {
    "products_id": "product",
    "users_id": "user",
    "products_categorical": ("brand",),
    "products_multivalued": ("tags",),
    "products_numeric": ("price",),
}
OF_USERS = {"users_categorical": ("gender",), "users_numeric": ("age",)}


def write(folder: Path, **files: str | bytes) -> Path:
    """ratings.csv, products.csv and users.csv, or what `files` put in their place (by the name
    without .csv).
    """
    for name, content in (
        {"ratings": RATINGS, "products": PRODUCTS, "users": USERS} | files
    ).items():
        (folder / f"{name}.csv").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    return folder


def config(folder: Path, tables: bool = False, **settings):
    """Settings of a run on the folder; `tables`: with its products and users."""
    more = (
        {"products": str(folder / "products.csv"), "users": str(folder / "users.csv")}
        | FEATURES
        | OF_USERS
        if tables
        else {}
    )
    files = (
        {"interactions": str(folder / "ratings.csv")} if settings.get("split") != "files" else {}
    )
    basis = {
        "dataset": "files",
        "split": "random",
        "test_fraction": 0.5,
        "workdir": str(folder / "run"),
    }
    return some_config(**basis | files | more | settings)


def load(folder: Path, tables: bool = False, **settings):
    """The Dataset of `config`."""
    return loading.read(config(folder, tables, **settings))


def rows(dataset) -> list[tuple]:
    """(user, product, rating) with raw ids, in the order of the data."""
    return list(
        zip(
            dataset.catalog.user_ids[dataset.interactions.user],
            dataset.catalog.product_ids[dataset.interactions.product],
            dataset.interactions.rating.tolist(),
        )
    )


def expected() -> list[tuple]:
    """`rows` of RATINGS."""
    lines = [line.split(",") for line in RATINGS.splitlines()[1:]]
    return [(user, product, float(rating)) for user, product, rating, _ in lines]


def frame() -> pd.DataFrame:
    """RATINGS."""
    lines = [line.split(",") for line in RATINGS.splitlines()[1:]]
    table = pd.DataFrame(lines, columns=["user", "product", "rating", "timestamp"])
    return table.astype({"rating": float, "timestamp": int})
