"""SIGTERM, by which cluster managers and users end a run.

It saves and exits with the code that means "run me again".
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Terminated(BaseException):
    """SIGTERM came; no Exception, so that nobody on the way takes it for a failure of its own."""


class Request:
    """Whether SIGTERM has come."""

    made = False


@contextlib.contextmanager
def deferred() -> Iterator[Request]:
    """SIGTERM does nothing but note that it came, so that a step is not cut in two."""
    request = Request()

    def note(*_: Any) -> None:
        request.made = True

    with _handled(note):
        yield request


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """SIGTERM raises Terminated where the process is."""

    def leave(*_: Any) -> None:
        raise Terminated

    with _handled(leave):
        yield


@contextlib.contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others are not told
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
