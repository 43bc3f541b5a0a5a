"""Parts of a cluster are killed at random moments, ten times each.

Every job ends, by itself or with the same command again.
"""

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.end_to_end.clusters import launch, nobody_left, parts_of, result

EPOCHS, ROWS = 12, 72_603
SILENT = 60  # seconds without a word that count as a hang
VICTIMS = (
    (0, ("worker", 1)),
    (0, ("worker", 0)),
    (2, ("worker", 1)),
    (2, ("ps", 1)),
    (2, ("chief", 0)),
)


def lines_of(launcher: subprocess.Popen) -> Iterator[str]:
    """Until it ends; raises AssertionError with what was said where it hangs."""
    lines: queue.Queue[str] = queue.Queue()
    said: list[str] = []

    def read() -> None:
        for line in launcher.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=SILENT)
        except queue.Empty:
            raise AssertionError(f"silent for {SILENT} s after\n{''.join(said)}") from None
        if not line:
            break
        said.append(line)
        yield line
    launcher.wait(SILENT)


def all_parts(launcher: subprocess.Popen, count: int) -> dict[tuple[str, int], int]:
    """As parts_of, once all are there."""
    while len(parts := parts_of(launcher)) < count and launcher.poll() is None:
        time.sleep(0.05)
    return parts


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[int, tuple[float, float]]:
    """{servers: (test rmse, seconds from the start of the last part to the end)}."""
    found = {}
    for servers in (0, 2):
        workdir = tmp_path_factory.mktemp("whole") / "run"
        launcher = launch(workdir, f"--epochs={EPOCHS}", servers=servers)
        all_parts(launcher, 5 if servers else 2)
        began = time.monotonic()
        output = "".join(lines_of(launcher))
        assert launcher.returncode == 0, output
        found[servers] = result(workdir)["test"]["rmse"], time.monotonic() - began
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("servers, victim", VICTIMS)
def test_a_job_of_which_a_part_is_killed_ends_as_if_it_were_not(
    tmp_path, uninterrupted, servers, victim, number
):
    """Every other time nothing is started again but by the same command."""
    rmse, seconds = uninterrupted[servers]
    share = np.random.RandomState(10 * VICTIMS.index((servers, victim)) + number).uniform(0, 1)
    restarts = 3 * (number % 2)
    for trial in range(6):
        workdir, began, moment = tmp_path / str(trial), time.monotonic(), share * seconds
        launcher = launch(workdir, f"--epochs={EPOCHS}", servers=servers, restarts=restarts)
        killer = threading.Thread(
            target=strike, args=(launcher, 5 if servers else 2, victim, moment)
        )
        killer.start()
        lines = list(lines_of(launcher))
        killer.join()
        took = time.monotonic() - began
        print(
            f"{victim[0]} {victim[1]} to be killed after {moment:.1f} s of {seconds:.1f}; the "
            f"launcher ended after {took:.1f} s"
        )
        assert nobody_left(tmp_path)
        if any("ended with SIGKILL" in line for line in lines):
            break
        assert launcher.returncode == 0, "".join(lines)  # the job had ended before
        seconds = 0.8 * took
    else:
        raise AssertionError("the job ended before it was to be killed, six times")
    if not restarts:
        assert launcher.returncode == 75, "".join(lines)
        launcher = launch(workdir, f"--epochs={EPOCHS}", servers=servers)
        lines += lines_of(launcher)
    assert launcher.returncode == 0, "".join(lines)
    assert result(workdir)["test"]["rmse"] == pytest.approx(rmse, abs=0.005 if servers else 1e-6)
    if servers:
        assert visits("".join(lines)) == list(range(1, EPOCHS + 1))
    assert nobody_left(tmp_path)


def strike(launcher: subprocess.Popen, count: int, victim: tuple[str, int], moment: float) -> None:
    """Kills the victim so many seconds after all parts are there, if it still is."""
    process = all_parts(launcher, count)[victim]
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def visits(text: str) -> list[int]:
    """The epochs of which the job said that each row, at least, was visited."""
    found = re.findall(r"epoch +(\d+) .*?([\d,]+) rows visited", text)
    return sorted({int(epoch) for epoch, rows in found if int(rows.replace(",", "")) >= ROWS})


def test_visits_are_read_as_they_are_said():
    assert visits(
        "[chief 0] epoch    1   loss 0.9   72,603 rows visited\n[chief 0] epoch    2   loss 0.9   "
        "72,602 rows visited\n"
    ) == [1]


def test_silence_is_noticed(monkeypatch):
    monkeypatch.setattr(f"{__name__}.SILENT", 0.5)
    silent = subprocess.Popen(["sleep", "20"], stdout=subprocess.PIPE, text=True)
    with pytest.raises(AssertionError, match=r"^silent for 0\.5 s after"):
        list(lines_of(silent))
    silent.kill()
