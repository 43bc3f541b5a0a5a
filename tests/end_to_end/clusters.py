"""Jobs of several processes, started by scripts/launch.py, and what the tests do with them."""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
RUN = [
    "--model=mf",
    "--task=rating",
    "--split=random",
    "--early_stopping=0",
    "--batch_size=512",
    "--l2=0.6",
]
STARTED: list[subprocess.Popen] = []


def launch(workdir: Path, *flags: str, servers: int = 0, restarts: int = 0) -> subprocess.Popen:
    command = [
        sys.executable,
        SCRIPTS / "launch.py",
        "--workers=2",
        f"--parameter_servers={servers}",
        f"--restarts={restarts}",
        "--",
    ]
    words = [*command, *RUN, *flags, f"--workdir={workdir}"]
    STARTED.append(
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )
    return STARTED[-1]


def end_all() -> None:
    """What a test that failed has left running; the parts die with their launcher."""
    while STARTED:
        launcher = STARTED.pop()
        launcher.kill()
        launcher.wait()


def result(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.json").read_text())


def parts_of(launcher: subprocess.Popen) -> dict[tuple[str, int], int]:
    """{(kind, index): process}."""
    found = {}
    for process in subprocess.run(
        ["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True
    ).stdout.split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone meanwhile
            environment = dict(
                line.split("=", 1)
                for line in Path(f"/proc/{process}/environ").read_text().split("\0")
                if "=" in line
            )
            if "TF_CONFIG" in environment:
                task = json.loads(environment["TF_CONFIG"])["task"]
                found[task["type"], task["index"]] = int(process)
    return found


def until(launcher: subprocess.Popen, word: str) -> list[str]:
    """Reads what it prints up to a line with the word.

    A launcher that takes longer than three minutes to say it is killed.
    """
    lines, watch = [], threading.Timer(180, launcher.kill)
    watch.start()
    for line in launcher.stdout:
        lines.append(line)
        if word in line:
            watch.cancel()
            return lines
    raise AssertionError("".join(lines))


def nobody_left(workdir: Path) -> bool:
    return not subprocess.run(
        ["pgrep", "-f", f"train.py.*{workdir}"], capture_output=True, text=True
    ).stdout.split()
