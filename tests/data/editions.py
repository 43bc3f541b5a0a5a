"""The same few ratings in the layout of every MovieLens edition, byte for byte as the originals
write them.
"""

import zipfile
from pathlib import Path

import pandas as pd

from tfrec.data import sources
from tfrec.experiments.config import make_config

NAMES = ("latest-small", "latest", "100k", "1m", "10m", "20m", "25m", "32m")
CSV = {"latest-small", "latest", "20m", "25m", "32m"}
GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)

PRODUCTS = {  # id: (title, genres); not in the order of their ids
    7: ("Léon: The Professional (a.k.a. The Professional) (1994)", ["Action", "Crime"]),
    2: ('Amour, dit "la suite": Épisode 2 (2012)', ["Drama"]),
    30: ("Sans année", []),
    31: ("Blade Runner (Final Cut) (1982)", ["Action", "Sci-Fi"]),
}
RATINGS = [
    (9, 31, 4.0, 964982703),
    (9, 2, 1.0, 964982931),
    (4, 7, 5.0, 1445714835),
    (4, 30, 3.0, 1445714835),
    (4, 31, 2.0, 0),
]
USERS = {
    4: (24, "M", "technician"),
    9: (56, "F", "writer"),
    11: (17, "M", "student"),
}  # 11 rates nothing


def write(folder: Path, name: str, packed: bool = False) -> Path:
    """The edition below `folder`, in a subfolder as in the originals.

    Packed: as a zip. Returns what --data_dir takes.
    """
    files = edition(name)
    inside = f"ml-{name}"
    if packed:
        with zipfile.ZipFile(folder / f"{inside}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file, content in files.items():
                archive.writestr(f"{inside}/{file}", content)
        return folder / f"{inside}.zip"
    (folder / inside).mkdir()
    for file, content in files.items():
        (folder / inside / file).write_bytes(content)
    return folder / inside


def read(data_dir: Path, name: str = "latest", **settings: object) -> sources.Tables:
    return sources.read(make_config(dataset=name, data_dir=str(data_dir), **settings).data)


def edition(name: str, known=PRODUCTS, rows=RATINGS, users=USERS) -> dict[str, bytes]:
    if name in CSV:
        titles = {
            product: '"' + title.replace('"', '""') + '"' for product, (title, _) in known.items()
        }
        products = [
            f"{product},{titles[product]},{_genres(known[product], '(no genres listed)')}"
            for product in known
        ]
        return {
            "ratings.csv": _lines(["userId,movieId,rating,timestamp", *ratings(",", rows)]),
            "movies.csv": _lines(["movieId,title,genres", *products]),
        }
    if name == "100k":
        products = []
        for product, (title, genres) in known.items():
            flags = "|".join(
                str(int(genre in (genres or ["unknown"]))) for genre in GENRES_100K.split("|")
            )
            products.append(
                f"{product}|{title}|01-Jan-1994||http://us.imdb.com/M/title-exact?{product}|{flags}"
            )
        who = [
            f"{user}|{age}|{gender}|{occupation}|85711"
            for user, (age, gender, occupation) in users.items()
        ]
        return {
            "u.data": _lines(ratings("\t", rows)),
            "u.item": _lines(products, "latin-1"),
            "u.user": _lines(who),
        }
    encoding = "latin-1" if name == "1m" else "utf-8"
    products = [
        f"{product}::{title}::{_genres(known[product], '(no genres listed)')}"
        for product, (title, _) in known.items()
    ]
    files = {"ratings.dat": _lines(ratings("::", rows)), "movies.dat": _lines(products, encoding)}
    if name == "1m":
        who = [
            f"{user}::{gender}::{age}::{occupation}::48067"
            for user, (age, gender, occupation) in users.items()
        ]
        files["users.dat"] = _lines(who)
    return files


def ratings(separator: str, rows: list[tuple] = RATINGS) -> list[str]:
    return [separator.join(map(str, row)) for row in rows]


def expected_ratings() -> pd.DataFrame:
    table = pd.DataFrame(RATINGS, columns=["user", "product", "rating", "timestamp"]).astype(
        {"rating": "float32"}
    )
    table.index = pd.RangeIndex(len(table), name="row")
    return table


def _genres(product: tuple[str, list[str]], none: str) -> str:
    return "|".join(product[1]) or none


def _lines(lines: list[str], encoding: str = "utf-8") -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(encoding)
