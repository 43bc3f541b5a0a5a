"""Evaluates a finished run on another split, task or candidates file: python scripts/evaluate.py
--workdir=runs/... --split=random

Settings that are not given are those of the run. Rows that the run trained or validated on are
never tested.
"""

from pathlib import Path

from absl import flags as absl_flags

from tfrec import cli as command
from tfrec import flags
from tfrec.errors import UsageError
from tfrec.experiments import finished, report


def main() -> None:
    settings = flags.from_flags(absl_flags.FLAGS).flat()
    if not settings["workdir"]:
        raise UsageError("--workdir=FOLDER of a finished run is needed.")
    changes = {name: settings[name] for name in command.given() if name != "workdir"}
    print(report.table(finished.evaluate(Path(settings["workdir"]), changes)))


if __name__ == "__main__":
    flags.define_flags()
    command.run(main, flags.help)
