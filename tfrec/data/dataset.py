"""Dataset: users, products and all of their interactions, before they are split."""

import functools
from dataclasses import dataclass

import numpy as np

from tfrec.data.catalog import Catalog
from tfrec.data.interactions import Columns, Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.settings import DataSettings
from tfrec.data.splits import Columns as SplitColumns
from tfrec.data.splits import split_rows


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions in memory, with the users and products that they are of.

    Args:
        catalog: Users and products.
        columns: Of all rows, as in MemoryInteractions.
    """

    catalog: Catalog
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns["user"])

    @functools.cached_property
    def interactions(self) -> MemoryInteractions:
        """All rows."""
        return MemoryInteractions(self.catalog, self.columns)

    @property
    def default_split(self) -> str:
        """The split that --split=auto stands for."""
        return "user_temporal" if "timestamp" in self.columns else "random"

    def split(self, config: DataSettings) -> Split:
        """Divides the rows by config.split, which is not auto.

        Raises:
            UsageError: The data lack what the split needs, or a part that needs rows has none.
        """
        names = {"user", "product", "timestamp", "part"} & self.columns.keys()
        columns = {name: self.columns[name] for name in names}
        parts = split_rows(SplitColumns(len(self), self.catalog.num_products, **columns), config)
        return Split(*(self.interactions.take(np.sort(rows)) for rows in parts))
