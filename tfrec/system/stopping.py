"""SIGTERM, by which cluster managers and users end a run.

It saves and exits with the code that means "run me again".
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(BaseException):
    """SIGTERM came; no Exception, so that nobody on the way takes it for a failure of its own."""


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """SIGTERM raises Terminated where the process is."""

    def leave(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # others are not told
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
