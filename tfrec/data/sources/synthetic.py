"""A world of any size whose best possible RMSE is known, drawn block by block from a seed.

    rating = 3.5 + 0.35 b_u + 0.45 b_p + 0.5 p_u . q_p / sqrt(8) + 0.15 [weekend] + 0.8 noise

b, p_u and the noise are standard normal; q_p is half (of its variance) what the product's genres
say, half its own. Ratings are real numbers, neither rounded nor clipped, so that no model can come
below SIGMA = 0.8 but by chance. Products are taken by Zipf's law (the n-th in proportion to 1 / n),
flattened at its head, since nobody takes a product twice; the most active user has seven times the
rows of the least active one. Rows are in order of time, over four years.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tfrec.errors import UsageError

BLOCK = 65_536  # rows that are drawn together: another number draws others
SIGMA = 0.8
TASTES = 8
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Biography",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Family",
    "Fantasy",
    "History",
    "Horror",
    "Music",
    "Mystery",
    "Romance",
    "Sport",
    "War",
    "Western",
)
_BEGIN, _SECONDS = 1_546_300_800, 4 * 365 * 86_400  # 2019 to 2022
_LEAST = 0.25  # rows of the least active user, in mean rows; the most active one has 2 - _LEAST


@dataclass(frozen=True)
class SyntheticData:
    """`rows` ratings by `users` of `products`; everything is a function of these numbers and the
    seed.

    Takes about 50 bytes a user and 120 a product of memory.

    Raises:
        UsageError: there are not enough products for so many rows of each user.
    """

    users: int
    products: int
    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self._strata > self.products:
            most = max(self.products - 10, 0) * self.users // 2
            raise UsageError(
                f"--rows={self.rows}: at most about {most:,} with --users={self.users} and "
                f"--products={self.products}."
            )

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Returns all rows, in order."""
        return (self.block(number) for number in range(-(-self.rows // BLOCK)))

    def block(self, number: int) -> dict[str, np.ndarray]:
        """user, product int32 [n], rating f32 [n], timestamp int64 [n].

        N is BLOCK, and less in the last one.
        """
        random = self._random(1, number)
        row = np.arange(number * BLOCK, min((number + 1) * BLOCK, self.rows))
        step = (
            row * self._stride % self.rows
        )  # a permutation of all rows, in which a user's rows stand side by side
        user = np.minimum(
            (self._position(step / self.rows) * self.users).astype(np.int64), self.users - 1
        )
        within = step - (self._share(user / self.users) * self.rows).astype(np.int64)
        mixed = _mix(user.astype(np.uint64) + np.uint64(self.seed << 32))
        first, stride = (
            mixed % self._strata,
            1 + (mixed >> 32) % (self._strata - 1),
        )  # a walk through the strata that repeats none
        stratum = (first.astype(np.int64) + within * stride.astype(np.int64)) % self._strata
        low, high = self._edges[stratum], self._edges[stratum + 1]
        rank = low + (random.random(len(row), np.float32) * (high - low)).astype(np.int64)
        user, product = (
            np.take(self._user_of, user),
            np.take(self._product_of, np.minimum(rank, high - 1)),
        )
        timestamp = _BEGIN + ((row + random.random(len(row))) * (_SECONDS / self.rows)).astype(
            np.int64
        )
        noise = random.standard_normal(len(row), np.float32) * np.float32(SIGMA)
        return {
            "user": user,
            "product": product,
            "rating": self.mean(user, product, timestamp) + noise,
            "timestamp": timestamp,
        }

    def mean(self, user: np.ndarray, product: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
        """Returns what the ratings are without noise, f32 [n]."""
        weekend = (timestamp // 86_400 + 3) % 7 >= 5  # 1970 began with a Thursday
        taste = np.einsum(
            "ij,ij->i",
            np.take(self._of_user, user, axis=0),
            np.take(self._of_product, product, axis=0),
        )
        return taste + np.float32(0.15) * weekend

    def table(self) -> pd.DataFrame:
        """Returns title and genres of the products."""
        product, genre = np.nonzero(self._genres)
        lists = [
            part.tolist()
            for part in np.split(np.array(GENRES)[genre], np.flatnonzero(np.diff(product)) + 1)
        ]
        names = [f"Product {number}" for number in range(self.products)]
        return pd.DataFrame({"title": names, "genres": pd.Series(lists, dtype=object)})

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.seed, *key]))

    def _share(self, position: np.ndarray) -> np.ndarray:
        """Returns the share of all rows that users up to this position 0..1 have."""
        return _LEAST * position + (1 - _LEAST) * position**2

    def _position(self, share: np.ndarray) -> np.ndarray:
        """Returns the inverse of _share."""
        return (np.sqrt(_LEAST**2 + 4 * (1 - _LEAST) * share) - _LEAST) / (2 * (1 - _LEAST))

    @cached_property
    def _strata(self) -> int:
        """Returns a prime above the rows of any user.

        He takes no two products of a stratum, so none twice.
        """
        return _prime_above(math.ceil((2 - _LEAST) * self.rows / self.users) + 2)

    @cached_property
    def _edges(self) -> np.ndarray:
        """int64 [strata + 1]: where in the order of popularity each stratum begins; by Zipf's law
        all have the same mass, but at the head there is no stratum without a product.
        """
        mass = np.cumsum(1 / np.arange(1, self.products + 1))
        edges = np.append(
            np.searchsorted(mass, np.arange(self._strata) / self._strata * mass[-1]), self.products
        )
        at = np.arange(self._strata + 1)
        edges = np.maximum.accumulate(edges - at) + at
        return np.minimum(edges, self.products - at[::-1]).astype(np.int64)

    @cached_property
    def _stride(self) -> int:
        """Near the golden section of the rows and coprime to them, so that its multiples go evenly
        through all rows.
        """
        stride = max(int(self.rows * 0.6180339887), 1)
        return next(
            number
            for number in range(stride, 2 * self.rows + 2)
            if math.gcd(number, self.rows) == 1
        )

    @cached_property
    def _user_of(self) -> np.ndarray:
        return self._random(2).permutation(np.arange(self.users, dtype=np.int32))

    @cached_property
    def _product_of(self) -> np.ndarray:
        """By popularity, the first is the most popular."""
        return self._random(3).permutation(np.arange(self.products, dtype=np.int32))

    @cached_property
    def _genres(self) -> np.ndarray:
        """bool [P, genres], one to three each."""
        random = self._random(4)
        genres = np.zeros((self.products, len(GENRES)), bool)
        for count in (1, 2, 3):
            chosen = np.flatnonzero(random.integers(0, count, self.products) == 0)
            genres[chosen, random.integers(0, len(GENRES), len(chosen))] = True
        return genres

    @cached_property
    def _of_user(self) -> np.ndarray:
        """f32 [U, taste + bias + 1], which times _of_product makes a rating's mean."""
        made = np.ones((self.users, TASTES + 2), np.float32)
        made[:, :-1] = self._random(5).standard_normal((self.users, TASTES + 1), np.float32)
        made[:, -2] *= 0.35
        return made

    @cached_property
    def _of_product(self) -> np.ndarray:
        random = self._random(6)
        of_genres = (
            self._genres
            @ random.standard_normal((len(GENRES), TASTES))
            / np.sqrt(self._genres.sum(axis=1, keepdims=True))
        )
        own = random.standard_normal((self.products, TASTES))
        taste = (of_genres + own) * (0.5 / math.sqrt(2 * TASTES))
        bias = 3.5 + 0.45 * random.standard_normal((self.products, 1))
        return np.concatenate([taste, np.ones((self.products, 1)), bias], axis=1).astype(np.float32)


def _mix(numbers: np.ndarray) -> np.ndarray:
    """uint64 -> uint64 without pattern (the end of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _prime_above(number: int) -> int:
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
