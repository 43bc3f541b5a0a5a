"""Evaluates a finished run on another split, task or candidates file: python scripts/evaluate.py
--workdir=runs/... --split=random

Settings that are not given are those of the run. Rows that the run trained or validated on are
never tested.
"""

from pathlib import Path

from tfrec import cli as command
from tfrec.errors import UsageError


def main(changes) -> None:  # type: ignore[no-untyped-def]
    workdir = changes.pop("workdir", "")
    if not workdir:
        raise UsageError("--workdir=FOLDER of a finished run is needed.")
    from tfrec.experiments import finished, report

    print(report.table(finished.evaluate(Path(workdir), changes)))


if __name__ == "__main__":
    command.with_settings(main)
