"""Progress bars."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def watched(percent: Callable[[], float], desc: str) -> Iterator[None]:
    """Shows how far the work within is, once it takes longer than two seconds.

    Args:
        percent: Called from another thread: how much is done, below 0 where that is unknown.
        desc: What is done.
    """
    done = threading.Event()

    def show() -> None:
        if done.wait(2):
            return
        with bar(desc=desc, total=100, bar_format="{desc} {percentage:3.0f} %|{bar}|") as shown:
            while not done.wait(0.2):
                shown.update(max(percent() - shown.n, 0))

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if "interrupt" in str(error).lower():  # DuckDB's own way to say so
            raise KeyboardInterrupt from None
        raise
    finally:
        done.set()
        thread.join()
