"""Raw files -> Tables. The only place that knows what a MovieLens file looks like."""

import hashlib
import logging
import zipfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec.config import DataConfig
from tfrec.data import tables
from tfrec.data.tables import Layout, Location
from tfrec.errors import TfrecError

URL = "https://files.grouplens.org/datasets/movielens/ml-{}.zip"
NO_GENRES = ("(no genres listed)", "unknown", "")
PARTS = ("train", "validation", "test")  # the numbers in Tables.interactions["part"]


@dataclass
class Tables:
    """What a source gives.

    interactions: user, product (raw ids, int64), rating (float32), timestamp (int64, seconds; may lack), and with
        --split=files part (position in PARTS). In file order, indexed by row number.
    products: indexed by raw id: title, and feature columns (lists are multi-valued, strings categorical, numbers and
        booleans numeric). Its order numbers the products.
    users: the same for users, or None. Columns in `shown` are for people, not features.
    notes: lines about rows that were left out.
    """

    interactions: pd.DataFrame
    products: pd.DataFrame
    users: pd.DataFrame | None
    shown: tuple[str, ...] = ("title", "name", "year")
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MovieLens:
    """The three files of an edition."""

    ratings: Layout
    products: Layout
    users: Layout | None = None


_RATING = ("user", "product", "rating", "timestamp")
# fmt: off
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_AGES = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}  # as ml-1m groups them


def _named(*names: str) -> dict[str, str]:
    """Columns that have our names already; "-" is ignored."""
    return {f"-{i}" if name == "-" else name: name.strip("-") for i, name in enumerate(names)}


_CSV = MovieLens(
    Layout("ratings.csv", {"userId": "user", "movieId": "product", "rating": "rating", "timestamp": "timestamp"}, header=True),
    Layout("movies.csv", {"movieId": "product", "title": "title", "genres": "genres"}, header=True),
)
_100K = MovieLens(
    Layout("u.data", _named(*_RATING), separator="\t"),
    Layout("u.item", _named("product", "title", "-", "-", "-", *_GENRES_100K), separator="|", encoding="latin-1"),
    Layout("u.user", _named("user", "age", "gender", "occupation", "-"), separator="|"),
)
_1M = MovieLens(
    Layout("ratings.dat", _named(*_RATING), separator="::"),
    Layout("movies.dat", _named("product", "title", "genres"), separator="::", encoding="latin-1"),
    Layout("users.dat", _named("user", "gender", "age", "occupation", "-"), separator="::"),
)
_10M = MovieLens(_1M.ratings, Layout("movies.dat", _named("product", "title", "genres"), separator="::"))
LAYOUTS = {"latest-small": _CSV, "latest": _CSV, "100k": _100K, "1m": _1M, "10m": _10M, "20m": _CSV, "25m": _CSV, "32m": _CSV}


def read(config: DataConfig) -> Tables:
    """The tables of the data set that the settings name.

    Raises:
        TfrecError: a file is missing or broken; the message names file, row and column.
    """
    layout, notes, skip_bad = LAYOUTS[config.dataset], [], config.on_bad_rows == "skip"  # type: tuple[MovieLens, list[str], bool]
    root = _locate(config, layout.products.file, notes)
    products = _products(root / layout.products.file, layout.products, skip_bad, notes)
    users = _users(root / layout.users.file, layout.users, skip_bad, notes) if layout.users else None
    if config.split == "files":
        files = {"train": config.train_file, "validation": config.validation_file, "test": config.test_file}
        parts = {PARTS.index(part): Path(file).expanduser() for part, file in files.items() if file}
        interactions = pd.concat(
            [_ratings(path, layout, products, users, skip_bad, notes).assign(part=part) for part, path in parts.items()]
        )
    else:
        interactions = _ratings(root / layout.ratings.file, layout, products, users, skip_bad, notes)
    return Tables(interactions, products[products.listed].drop(columns="listed"), users, notes=notes)


def _ratings(
    path: Location, layout: MovieLens, products: pd.DataFrame, users: pd.DataFrame | None, skip_bad: bool, notes: list[str]
) -> pd.DataFrame:
    """Ratings of known products by known users; those of products without a genre field go with their product."""
    table = tables.read(path, layout.ratings, {"user": int, "product": int, "rating": float, "timestamp": int}, skip_bad, notes)
    late = table["timestamp"].abs() >= 2**33  # the year 2242
    table = tables.without(table, late, "timestamp", "is not a time in seconds since 1970", path.name, skip_bad, notes)
    unknown = ~table["product"].isin(products.index)
    table = tables.without(table, unknown, "product", f"is not in {layout.products.file}", path.name, skip_bad, notes)
    if users is not None and layout.users:
        unknown = ~table["user"].isin(users.index)
        table = tables.without(table, unknown, "user", f"is not in {layout.users.file}", path.name, skip_bad, notes)
    kept = table["product"].isin(products.index[products.listed])
    if not kept.all():
        notes.append(f"{path.name}: left out {int((~kept).sum()):,} ratings of products whose genre field is empty")
    return table[kept]


def _products(path: Location, layout: Layout, skip_bad: bool, notes: list[str]) -> pd.DataFrame:
    """title, name, year, old, genres (lists), and listed: is there a genre field, be it "(no genres listed)"?"""
    numbers: dict[str, type] = dict.fromkeys(["product", *(set(layout.columns) & set(_GENRES_100K))], int)
    table = tables.read(path, layout, numbers, skip_bad, notes)
    table = tables.without(table, table["product"].duplicated(), "product", "stands there twice", path.name, skip_bad, notes)
    if "genres" in table:
        fields = [text.split("|") for text in table["genres"]]
    else:
        flags = table[list(_GENRES_100K)].to_numpy(bool)
        fields = [[genre for genre, on in zip(_GENRES_100K, row) if on] for row in flags]
    year = pd.to_numeric(table["title"].str.findall(r"\((\d{4})\)").str[-1])
    genres = [[genre for genre in genres if genre not in NO_GENRES] for genres in fields]
    listed = np.array([genres != [""] for genres in fields])
    if not listed.all():
        notes.append(f"{path.name}: left out {int((~listed).sum()):,} products whose genre field is empty")
    return pd.DataFrame(
        {
            "title": table["title"].to_numpy(),
            "name": table["title"].str.replace(r"\s*\([^)]*\)", "", regex=True).str.strip().to_numpy(),
            "year": year.to_numpy(),
            "old": (year < 2000).to_numpy(),
            "genres": pd.Series(genres, dtype=object).to_numpy(),
            "listed": listed,
        },
        index=pd.Index(table["product"].to_numpy(), name="product"),
    )


def _users(path: Location, layout: Layout, skip_bad: bool, notes: list[str]) -> pd.DataFrame:
    """age (bucket), gender, occupation, all categorical."""
    table = tables.read(path, layout, {"user": int, "age": int}, skip_bad, notes)
    table = tables.without(table, table["user"].duplicated(), "user", "stands there twice", path.name, skip_bad, notes)
    bucket = np.array(list(_AGES.values()))[np.searchsorted(list(_AGES), table["age"].clip(lower=1), side="right") - 1]
    return pd.DataFrame(
        {"age": bucket, "gender": table["gender"].to_numpy(), "occupation": table["occupation"].astype(str).to_numpy()},
        index=pd.Index(table["user"].to_numpy(), name="user"),
    )


def _locate(config: DataConfig, file: str, notes: list[str]) -> Location:
    """The folder, on disk or in a zip, that holds `file`: --data_dir, the built-in copy, or a download."""
    if config.data_dir:
        root = Path(config.data_dir).expanduser()
        if not root.exists():
            raise TfrecError(f"--data_dir={config.data_dir}: there is no such folder or file.")
        inside = root / f"ml-{config.dataset}.zip"
        return _folder_with(inside if inside.is_file() else root, file)
    if config.dataset == "latest-small":
        return _folder_with(Path(str(resources.files("tfrec.data") / "builtin" / "ml-latest-small.zip")), file)
    return _folder_with(_download(URL.format(config.dataset), notes), file)


def _folder_with(root: Path, file: str) -> Location:
    place: Location = root
    if root.is_file():
        try:
            place = zipfile.Path(root)
        except zipfile.BadZipFile:
            raise TfrecError(f"{root}: not a zip file, or a broken one. Remove it and download it again, or give the folder.") from None
    for folder in (place, *(inside for inside in place.iterdir() if inside.is_dir())):
        if (folder / file).is_file():
            return folder
    raise TfrecError(f"{root}: there is no {file} in it. Is --dataset the one that was downloaded?")


def _download(url: str, notes: list[str]) -> Path:
    """The zip behind `url`, downloaded once and checked against TFDS' checksum where it has one."""
    import requests
    import tensorflow_datasets as tfds  # slow to import, and only needed here
    from tensorflow_datasets.core.download import download_manager, downloader

    downloader.MAX_RETRIES = 3  # TFDS' own 10 keep you waiting for three minutes when there is no network
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    known = tfds.builder_cls("movielens").url_infos
    try:
        folder = Path(tfds.core.constants.get_default_data_dir()).expanduser() / "downloads"
        manager = tfds.download.DownloadManager(download_dir=folder, url_infos=known)
        path = Path(manager.download(url))
    except Exception as error:  # requests, urllib3 and TFDS each raise their own
        wrong = isinstance(error, download_manager.NonMatchingChecksumError)
        offline = isinstance(error, requests.exceptions.ConnectionError)
        reason = "no connection" if offline else " ".join(str(error).split())[:200]
        reason = "its checksum is not the one that TFDS has" if wrong else reason
        raise TfrecError(f"{url}: the download failed ({reason}). Download it by hand and pass --data_dir=FILE.zip.") from None
    if url not in known:
        notes.append(f"{url}: TFDS knows no checksum; sha256 of this copy: {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return path
