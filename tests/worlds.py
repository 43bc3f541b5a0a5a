"""Small data sets on disk, in MovieLens' own layouts, with taste in them that a model can learn."""

from pathlib import Path

import numpy as np

GENRES = ("Action", "Comedy", "Drama", "Sci-Fi")


def write_1m(
    folder: Path, num_users: int = 60, num_products: int = 40, rows: int = 1000, seed: int = 0
) -> Path:
    """ml-1m's three files: users.dat, movies.dat, ratings.dat. Returns the folder."""
    random = np.random.RandomState(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ages, jobs = (
        random.choice([1, 18, 25, 35, 45, 50, 56], num_users),
        random.randint(0, 4, num_users),
    )
    users = [f"{u + 1}::{'FM'[u % 2]}::{ages[u]}::{jobs[u]}::00000" for u in range(num_users)]
    genre = random.randint(0, len(GENRES), num_products)
    products = [
        f"{p * 2 + 1}::Film {p} ({1960 + p})::{GENRES[genre[p]]}" for p in range(num_products)
    ]
    taste, quality = random.normal(size=(num_users, len(GENRES))), random.normal(size=num_products)
    pairs = random.permutation(num_users * num_products)[:rows]
    user, product = pairs // num_products, pairs % num_products
    rating = np.clip(
        np.round(
            3.5
            + 0.7 * quality[product]
            + 0.7 * taste[user, genre[product]]
            + 0.2 * random.normal(size=rows)
        ),
        1,
        5,
    )
    time = 9.6e8 + random.randint(0, 10**7, rows)
    ratings = [
        f"{u + 1}::{p * 2 + 1}::{r:.0f}::{t:.0f}" for u, p, r, t in zip(user, product, rating, time)
    ]
    for name, lines in (("users", users), ("movies", products), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def write_clubs(
    folder: Path,
    num_users: int = 120,
    num_products: int = 60,
    clubs: int = 4,
    taken: int = 8,
    seed: int = 0,
) -> Path:
    """A CSV of who took what.

    Everybody takes products of his club's alone, and all are about as popular. Returns the file.
    """
    random = np.random.RandomState(seed)
    lines = ["user,product"]
    for user in range(num_users):
        of_club = np.arange(user % clubs, num_products, clubs)
        lines += [f"{user},{product}" for product in random.choice(of_club, taken, replace=False)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "taken.csv").write_text("\n".join(lines) + "\n")
    return folder / "taken.csv"
