"""What a tested product is ranked among in NCF's public protocol: given negatives, and drawn ones
for validation.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tfrec.data.catalog import Catalog
from tfrec.data.memory import MemoryInteractions
from tfrec.errors import TfrecError, UsageError
from tfrec.system.text import as_texts


def read_candidates(path: Path, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """NCF's *.test.negative: lines of "(user,item)", then tab-separated negatives, raw ids.

    Returns:
        users int32 [n] and products int32 [n, 1 + negatives], the test product first, as indices.

    Raises:
        TfrecError: the file is missing, or a line is not of this form or names an unknown id.
    """
    try:
        text = path.read_text()
    except OSError:
        raise TfrecError(f"candidates_file={path}: there is no such file.") from None
    except UnicodeDecodeError:
        raise TfrecError(f"candidates_file={path}: the file is not text.") from None
    lines = {row: line for row, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not lines:
        raise TfrecError(f"{path.name}: the file is empty.")
    rows, table = list(lines), [_fields(line) for line in lines.values()]
    for row, fields in zip(rows, table):
        if not fields:
            raise TfrecError(
                f"{path.name}, row {row:,}: expected (user,item), then tab-separated negatives; "
                f"found {lines[row][:40]!r}."
            )
        if len(fields) != len(table[0]):
            raise TfrecError(
                f"{path.name}, row {row:,}: {len(fields) - 2} negatives where row {rows[0]:,} has "
                f"{len(table[0]) - 2}. Give each the same."
            )
    ids = np.array(table, object)
    users = pd.Index(as_texts(catalog.user_ids)).get_indexer(ids[:, 0])
    products = (
        pd.Index(as_texts(catalog.product_ids))
        .get_indexer(ids[:, 1:].ravel())
        .reshape(len(ids), -1)
    )
    for place, column in np.argwhere(np.c_[users, products] < 0)[:1]:
        raise TfrecError(
            f"{path.name}, row {rows[place]:,}: unknown {'product' if column else 'user'} "
            f"{ids[place, column]}."
        )
    return users.astype(np.int32), products.astype(np.int32)


def draw_candidates(
    rows: MemoryInteractions, taken: np.ndarray, num_products: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws negatives for rows as the protocol does: products that the row's user has not taken,
    uniformly, each once. The same rows get the same ones.

    Args:
        rows: Their products are what is ranked.
        taken: What nobody gets as a negative, keys user * P + product, int64, sorted.
        num_products: P.
        count: Negatives of a row. Those of users who have not so many left are not ranked.

    Returns:
        As read_candidates.

    Raises:
        UsageError: No row is ranked.
    """
    random, found = np.random.RandomState(0), {}
    for row, user in enumerate(rows.user.astype(np.int64)):
        mine = slice(*np.searchsorted(taken, [user * num_products, (user + 1) * num_products]))
        others = np.delete(np.arange(num_products), taken[mine] % num_products)
        if len(others) >= count:
            found[row] = random.choice(others, count, replace=False)
    if not found:
        raise UsageError(
            f"candidates_file: of rows to validate no user has {count:,} products that they have "
            "not taken, as many as a line has negatives. Take validation_fraction=0."
        )
    ranked, negatives = list(found), np.stack(list(found.values()))
    return rows.user[ranked], np.c_[rows.product[ranked], negatives].astype(np.int32)


def _fields(line: str) -> list[str]:
    """[user, item, negative, ...], or [] where the line is not of the form."""
    head, *negatives = line.strip().split("\t")
    pair = head.removeprefix("(").removesuffix(")").split(",")
    good = head.startswith("(") and head.endswith(")") and len(pair) == 2 and negatives
    return [part.strip() for part in pair + negatives] if good else []
