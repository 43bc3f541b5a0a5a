"""MovieLens in every layout -> Tables. The only place that knows what its files look like."""

import hashlib
import logging
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from tfrec.data import ingest
from tfrec.data.forms import File
from tfrec.data.ingest import Given, Tables
from tfrec.data.reading import Kind, Reading, database
from tfrec.data.settings import DataSettings
from tfrec.data.tables import PARTS
from tfrec.errors import TfrecError

URL = "https://files.grouplens.org/datasets/movielens/ml-{}.zip"
_KINDS: dict[str, Kind] = {
    "user": "whole",
    "product": "whole",
    "rating": "number",
    "timestamp": "time",
}
Folder = Path | zipfile.Path
NO_GENRES = ("(no genres listed)", "unknown", "")


@dataclass(frozen=True)
class MovieLens:
    """The three files of an edition, each a File whose path is its name."""

    ratings: File
    products: File
    users: File | None = None


_RATING = ("user", "product", "rating", "timestamp")
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_AGES = {
    1: "under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56+",
}  # as ml-1m groups them


def _named(file: str, names: tuple[str, ...], separator: str, encoding: str = "utf-8") -> File:
    """Returns a file without a header, whose columns have our names; "-" is ignored."""
    names = tuple(f"-{at}" if name == "-" else name for at, name in enumerate(names))
    columns = {name: name for name in names if not name.startswith("-")}
    return File(Path(file), columns, names, separator, encoding, "none")


_CSV = MovieLens(
    File(Path("ratings.csv"), dict(zip(_RATING, ("userId", "movieId", "rating", "timestamp")))),
    File(Path("movies.csv"), {"product": "movieId", "title": "title", "genres": "genres"}),
)
_100K = MovieLens(
    _named("u.data", _RATING, "\t"),
    _named("u.item", ("product", "title", "-", "-", "-", *_GENRES_100K), "|", "latin-1"),
    _named("u.user", ("user", "age", "gender", "occupation", "-"), "|"),
)
_1M = MovieLens(
    _named("ratings.dat", _RATING, "::"),
    _named("movies.dat", ("product", "title", "genres"), "::", "latin-1"),
    _named("users.dat", ("user", "gender", "age", "occupation", "-"), "::"),
)
_10M = MovieLens(_1M.ratings, _named("movies.dat", ("product", "title", "genres"), "::"))
LAYOUTS = {
    "latest-small": _CSV,
    "latest": _CSV,
    "100k": _100K,
    "1m": _1M,
    "10m": _10M,
    "20m": _CSV,
    "25m": _CSV,
    "32m": _CSV,
}


def read(config: DataSettings, con: duckdb.DuckDBPyConnection) -> Tables:
    """Returns the tables of an edition.

    Args:
        config: The settings.
        con: A connection to the data base that takes up the rows.
    """
    edition = _Edition(config)
    readings = [edition.checked(Reading(con, file, _KINDS)) for _, file in edition.ratings]
    given = Given(readings, [part for part, _ in edition.ratings])
    products = edition.products[edition.products.listed].drop(columns="listed")
    users = None if edition.users is None else edition.users.sort_index()
    tables = {"product": products, "user": users}
    rows = ingest.of_files(given, tables, config, edition.notes)
    products = products.loc[rows.ids["product"]]
    return Tables(rows, products, users, ("title", "name", "year"), edition.notes)


class _Edition:
    """An edition on disk.

    Its ratings, (place in PARTS, or -1; file), and its products and users in memory.
    """

    def __init__(self, config: DataSettings) -> None:
        self.layout, self.notes = LAYOUTS[config.dataset], []  # type: MovieLens, list[str]
        root = _locate(config, self.layout.products.name, self.notes)
        self.folder = tempfile.TemporaryDirectory()  # of files that are in a zip

        def file(of: File, path: Path | None = None) -> File:
            skip = config.on_bad_rows == "skip"
            found = path or self._on_disk(root / of.name)
            return replace(of, path=found, skip_bad=skip, notes=self.notes)

        con = database()
        self.products = _products(con, file(self.layout.products))
        self.users = _users(con, file(self.layout.users)) if self.layout.users else None
        parts = {
            "train": config.train_file,
            "validation": config.validation_file,
            "test": config.test_file,
        }
        paths = {PARTS.index(part): Path(path).expanduser() for part, path in parts.items() if path}
        self.ratings = [(part, file(self.layout.ratings, path)) for part, path in paths.items()]
        self.ratings = self.ratings or [(-1, file(self.layout.ratings))]

    def _on_disk(self, place: Path | zipfile.Path) -> Path:
        """Returns a file, taken out of its zip."""
        if isinstance(place, Path):
            return place
        path = Path(self.folder.name) / place.name
        try:
            with place.open("rb") as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (OSError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
            raise TfrecError(
                f"{place.name}: cannot be read ({error}). Is it broken? Get it again."
            ) from None
        return path

    def checked(self, reading: Reading) -> Reading:
        """Returns the ratings, those of unknown products and users refused.

        Those of products without a genre field go with their product.
        """
        known = {"product": (self.products, self.layout.products)}
        if self.users is not None and self.layout.users:
            known["user"] = self.users, self.layout.users
        for side, (of, file) in known.items():
            reading.require(side, f"value IN ({_listed(of.index)})", f"is not in {file.name}.")
        unlisted = self.products.index[~self.products.listed]
        if len(unlisted):
            count = reading.leave_out(f"{reading.columns['product']} IN ({_listed(unlisted)})")
            reading.file.note("left out", count, "rating{} of products whose genre field is empty")
        return reading


def _listed(ids: pd.Index) -> str:
    return ", ".join(map(str, ids))


def _products(con: duckdb.DuckDBPyConnection, file: File) -> pd.DataFrame:
    """title, name, year, old, genres (lists), and listed.

    Is there a genre field, be it "(no genres listed)"?
    """
    kinds: dict[str, Kind] = dict.fromkeys(
        ["product", *(set(file.columns) & set(_GENRES_100K))], "whole"
    )
    reading = Reading(con, file, kinds)
    table = reading.frame()
    table = reading.without(table, table["product"].duplicated(), "product", "stands there twice.")
    if "genres" in table:
        fields = [text.split("|") for text in table["genres"]]
    else:
        flags = table[list(_GENRES_100K)].to_numpy(bool)
        fields = [[genre for genre, on in zip(_GENRES_100K, row) if on] for row in flags]
    year = pd.to_numeric(table["title"].str.findall(r"\((\d{4})\)").str[-1])
    genres = [[genre for genre in genres if genre not in NO_GENRES] for genres in fields]
    listed = np.array([genres != [""] for genres in fields])
    if not listed.all():
        file.notes.append(
            f"{file.name}: left out {int((~listed).sum()):,} products whose genre field is empty"
        )
    return pd.DataFrame(
        {
            "title": table["title"].to_numpy(),
            "name": table["title"]
            .str.replace(r"\s*\([^)]*\)", "", regex=True)
            .str.strip()
            .to_numpy(),
            "year": year.to_numpy(),
            "old": (year < 2000).to_numpy(),
            "genres": pd.Series(genres, dtype=object).to_numpy(),
            "listed": listed,
        },
        index=pd.Index(table["product"].to_numpy(), name="product"),
    )


def _users(con: duckdb.DuckDBPyConnection, file: File) -> pd.DataFrame:
    """age (bucket), gender, occupation, all categorical."""
    reading = Reading(con, file, {"user": "whole", "age": "whole"})
    table = reading.frame()
    table = reading.without(table, table["user"].duplicated(), "user", "stands there twice.")
    bucket = np.array(list(_AGES.values()))[
        np.searchsorted(list(_AGES), table["age"].clip(lower=1), side="right") - 1
    ]
    return pd.DataFrame(
        {
            "age": bucket,
            "gender": table["gender"].to_numpy(),
            "occupation": table["occupation"].astype(str).to_numpy(),
        },
        index=pd.Index(table["user"].to_numpy(), name="user"),
    )


def _locate(config: DataSettings, file: str, notes: list[str]) -> Folder:
    """Returns the folder, on disk or in a zip, that holds `file`.

    --data_dir, the built-in copy, or a download.
    """
    if config.data_dir:
        root = Path(config.data_dir).expanduser()
        if not root.exists():
            raise TfrecError(f"--data_dir={config.data_dir}: there is no such folder or file.")
        inside = root / f"ml-{config.dataset}.zip"
        return _folder_with(inside if inside.is_file() else root, file)
    if config.dataset == "latest-small":
        return _folder_with(
            Path(str(resources.files("tfrec.data") / "builtin" / "ml-latest-small.zip")), file
        )
    return _folder_with(_download(URL.format(config.dataset), notes), file)


def _folder_with(root: Path, file: str) -> Folder:
    place: Folder = root
    if root.is_file():
        try:
            place = zipfile.Path(root)
        except zipfile.BadZipFile:
            raise TfrecError(
                f"{root}: not a zip file, or a broken one. Remove it and download it again, or "
                "give the folder."
            ) from None
    for folder in (place, *(inside for inside in place.iterdir() if inside.is_dir())):
        if (folder / file).is_file():
            return folder
    raise TfrecError(f"{root}: there is no {file} in it. Is --dataset the one that was downloaded?")


def _download(url: str, notes: list[str]) -> Path:
    """Returns the zip behind `url`, downloaded once and checked against TFDS' checksum where it has
    one.
    """
    import requests
    import tensorflow_datasets as tfds  # slow to import, and only needed here
    from tensorflow_datasets.core.download import download_manager, downloader

    downloader.MAX_RETRIES = (
        3  # TFDS' own 10 keep you waiting for three minutes when there is no network
    )
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
        raise TfrecError(
            f"{url}: the download failed ({reason}). Download it by hand and pass "
            "--data_dir=FILE.zip."
        ) from None
    if url not in known:
        notes.append(
            f"{url}: TFDS knows no checksum; sha256 of this copy: "
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}"
        )
    return path
