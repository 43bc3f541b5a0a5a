"""What a wrong input ends in: one line that says what is wrong, where, and how to mend it."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class TfrecError(Exception):
    """Something failed (a broken file, a non-finite loss): scripts print it and exit with 1."""

    exit_code = 1


class UsageError(TfrecError):
    """The command is wrong (an unknown setting, settings that exclude each other): exit with 2."""

    exit_code = 2


class Diverged(TfrecError):
    """A loss, a metric or a weight is not finite.

    The settings are at fault, and the same run would end so again.
    """


class Preempted(TfrecError):
    """The run was cut short from outside (SIGTERM, a process of the cluster lost) and the same
    command goes on: exit with 75.

    75 is EX_TEMPFAIL of sysexits.h. The message names the reason; the scripts say what to do.
    """

    exit_code = 75


def unwritable(error: Exception) -> str | None:
    """Returns why a file could not be written, be it Python, TensorFlow or Arrow that says so.

    None where the error is another one.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return next((os.strerror(code) for code in codes if os.strerror(code) in str(error)), None)


_OF_SYSTEM = {
    f"; {os.strerror(number)}" for number in errno.errorcode
}  # TensorFlow says "FILE; No space left on device"
_OF_MACHINE = {"ResourceExhaustedError", "DataLossError", "PermissionDeniedError"}


def reason(error: Exception) -> str | None:
    """Returns why the file system or the memory, or TensorFlow on their behalf, failed, in one
    line; None where the error is another one.

    Other errors of TensorFlow are bugs of a program, which need their traceback.
    """
    if why := unwritable(error):
        return why
    if isinstance(error, OSError):
        return error.strerror or (str(error).splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({error})' if str(error) else ''}"[:200]
    if type(error).__module__.startswith("tensorflow.") and hasattr(error, "error_code"):
        lines = tensorflow_lines(error)
        cause = next((line for line in lines if any(text in line for text in _OF_SYSTEM)), None)
        if cause is None and type(error).__name__ in _OF_MACHINE:
            memory = next(
                (f"not enough memory ({line})" for line in lines if line.startswith("OOM")), None
            )
            cause = memory or next(iter(lines), type(error).__name__)
        return cause and cause[:200].rstrip(".")
    return None


def tensorflow_lines(error: Exception) -> list[str]:
    """Returns what TensorFlow says, without the names of its nodes and operations."""
    text = re.sub(r"\{\{.*?\}\}| \[Op:\w+\]", "", str(getattr(error, "message", None) or error))
    return [
        line.strip()
        for line in text.splitlines()
        if line.strip() and line.strip() != "Graph execution error:"
    ]


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns a question that can follow a message (it opens with a space), or "" where nothing is
    near.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]}?" if close else ""
