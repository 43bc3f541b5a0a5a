"""Progress bars."""

import sys
from typing import Any

from tqdm import tqdm


def bar(*args: Any, **options: Any) -> tqdm:
    """Returns a tqdm bar on terminals and in notebooks, gone at its end; elsewhere a silent one.

    Args:
        args, options: As of tqdm.
    """
    # a notebook's streams say that they are no terminal
    options.setdefault("disable", False if "ipykernel" in sys.modules else None)
    return tqdm(*args, dynamic_ncols=True, leave=False, **options)
