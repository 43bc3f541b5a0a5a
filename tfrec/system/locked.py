"""A folder that one process has to itself."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tfrec.errors import TfrecError, UsageError


@contextlib.contextmanager
def locked(folder: Path, flag: str, otherwise: str = "is at work there") -> Iterator[None]:
    """Makes the folder if need be, and has it while no other process does.

    flag: how a message calls it. otherwise: what another process does.

    Raises:
        UsageError: another process has it.
        TfrecError: it cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise TfrecError(f"{flag}: cannot be written ({error.strerror}).") from None
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{flag}: another process {otherwise}. Wait for it, or take another folder."
            ) from None
        except OSError as error:  # some network file systems have no locks
            raise TfrecError(
                f"{flag}: cannot be locked ({error.strerror}). Take a folder on another file "
                "system."
            ) from None
        yield
    finally:
        os.close(opened)
