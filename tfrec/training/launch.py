"""A cluster on this machine, of processes that talk over loopback, for trying out and for tests.

It does what a cluster manager does: TF_CONFIG for each process, a new start for one that died, an
end for all when the chief has ended.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tfrec.errors import Preempted

SECONDS_TO_END = 10  # then what is left is killed


@dataclass
class Part:
    """One process of the cluster, and how often it may still be started again."""

    kind: str
    index: int
    restarts: int
    process: subprocess.Popen
    printer: threading.Thread
    started_again: float = 0.0  # when it was for the last time, as time.monotonic has it

    @property
    def name(self) -> str:
        """Returns the kind and the index, such as worker 1."""
        return f"{self.kind} {self.index}"


def run(command: list[str], workers: int, parameter_servers: int, restarts: int) -> int:
    """Runs the command as `workers` processes in step, or as a chief, `workers` and
    `parameter_servers`; prints their lines with names.

    A part that died (a signal, or exit code 75: run me again) is started again up to `restarts`
    times. One that failed ends all.

    Returns:
        The exit code of the chief (worker 0 where there is none), or of the part that ended all.
    """
    sizes = (
        {"chief": 1, "worker": workers, "ps": parameter_servers}
        if parameter_servers
        else {"worker": workers}
    )
    addresses = _free_addresses(sum(sizes.values()))
    cluster = {kind: [addresses.pop() for _ in range(size)] for kind, size in sizes.items()}
    parts: list[Part] = []
    signals: list[int] = []

    def start(kind: str, index: int) -> tuple[subprocess.Popen, threading.Thread]:
        return _start(command, cluster, kind, index)

    with _forwarded(parts, signals):
        try:
            for kind, size in reversed(sizes.items()):  # the chief last: it looks for the others
                for index in range(size):
                    parts.append(Part(kind, index, restarts, *start(kind, index)))
            if signals:  # before some of them were there
                _tell(parts)
            return _watch(parts, next(iter(sizes)), start, signals)
        finally:
            _end(parts)


def _watch(
    parts: list[Part],
    chief: str,
    start: Callable[[str, int], tuple[subprocess.Popen, threading.Thread]],
    signals: list[int],
) -> int:
    """Until the chief has ended well, or a part has ended all; returns the exit code."""
    leader = next(part for part in parts if (part.kind, part.index) == (chief, 0))
    while True:
        time.sleep(0.1)
        ended = [part.started_again for part in parts if part.process.poll() == 0]
        if any(started < leader.started_again for started in ended):
            # in step with the leader before it died: alone it would wait for them without end
            print(f"the run was finished when {leader.name} died.", flush=True)
            return 0
        for part in sorted(
            parts, key=lambda part: (part.process.poll() or 0) >= 0
        ):  # who was killed before those that lost them
            code = part.process.poll()
            leads = part is leader
            if code is None or (
                not leads and (code == 0 or signals)
            ):  # told to stop, the chief may still be saving
                continue
            if code == 0:
                return 0
            died = code < 0 or code == Preempted.exit_code
            if not died or signals or not part.restarts:
                if not signals:
                    print(f"{part.name} ended with {_words(code)}; that ends all.", flush=True)
                return code if code > 0 else Preempted.exit_code
            part.restarts -= 1
            print(
                f"{part.name} ended with {_words(code)}; it starts again, and may {part.restarts} "
                "times more.",
                flush=True,
            )
            part.process, part.printer = start(part.kind, part.index)
            part.started_again = time.monotonic()
            if signals:  # meanwhile
                _tell(parts)


def _words(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _start(
    command: list[str], cluster: dict[str, list[str]], kind: str, index: int
) -> tuple[subprocess.Popen, threading.Thread]:
    environment = os.environ | {
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    }
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_die_with_parent,
    )
    printer = threading.Thread(target=_print, args=(process, f"{kind} {index}"), daemon=True)
    printer.start()
    return process, printer


def _print(process: subprocess.Popen, name: str) -> None:
    assert process.stdout
    for line in process.stdout:
        with contextlib.suppress(
            BrokenPipeError
        ):  # `| head` has read enough; the part must not wait for a reader
            print(f"[{name}] {line}", end="", flush=True)


def _end(parts: list[Part]) -> None:
    """Asks, waits, kills: when it returns, no process is left."""
    alive = [part.process for part in parts if part.process.poll() is None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for process in alive:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))
        process.kill()
        process.wait()
    for part in parts:
        part.printer.join(SECONDS_TO_END)


@contextlib.contextmanager
def _forwarded(parts: list[Part], signals: list[int]) -> Iterator[None]:
    """SIGTERM goes to the parts that train."""

    def forward(number: int, _: object) -> None:
        signals.append(number)
        _tell(parts)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(parts: list[Part]) -> None:
    """Servers, which have nothing to save, end with the chief."""
    for part in parts:
        if part.process.poll() is None and (
            part.kind == "chief" or all(other.kind == "worker" for other in parts)
        ):
            part.process.terminate()


def _die_with_parent() -> None:
    """A launcher that is killed leaves nobody behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [f"localhost:{each.getsockname()[1]}" for each in sockets]
