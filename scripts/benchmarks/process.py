"""Each measurement in a process of its own, so that no side inherits another's threads, caches or
graphs.
"""

import contextlib
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from tfrec.errors import TfrecError

Measure = Callable[..., Any]  # (label, function, *arguments) -> what function(*arguments) returns


def measure_in(bar: tqdm) -> Measure:
    """A way to measure that shows in the bar what it is at."""

    def measure(label: str, function: Callable[..., Any], *arguments: Any) -> Any:
        bar.set_postfix_str(label)
        result = alone(function, *arguments)
        bar.update()
        return result

    return measure


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a fresh process, whose console output is dropped.

    Raises:
        TfrecError: the process died.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_quietly, function, arguments).result()
        except BrokenProcessPool:
            raise TfrecError(
                f"{function.__name__}{arguments}: the process died. Is there enough memory?"
            ) from None


def _quietly(function: Callable[..., Any], arguments: tuple) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function(*arguments)
