"""Runs scripts/train.py as a cluster on this machine: python scripts/launch.py --workers=2 --
--model=mf --workdir=runs/two

With --parameter_servers the strategy is parameter_server, else multi_worker. What stands behind --
goes to train.py.
"""

import sys
from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.experiments.flags import from_args
from tfrec.training import launch

WORKERS = flags.DEFINE_integer("workers", 2, "processes that train", lower_bound=1)
SERVERS = flags.DEFINE_integer(
    "parameter_servers",
    0,
    "processes that keep the tables, beside a chief that leads",
    lower_bound=0,
)
RESTARTS = flags.DEFINE_integer(
    "restarts",
    0,
    "how often each part may start again when it died; 0: one that dies ends all",
    lower_bound=0,
)


def check(args: list[str]) -> None:
    """Raises UsageError where the args are no settings of a run, or name no folder.

    Once, and before a process is started.
    """
    if not from_args(args).workdir:
        raise UsageError(
            "name the run's folder: python scripts/launch.py --workers=2 -- --model=mf "
            "--workdir=runs/NAME"
        )


def main(args):  # type: ignore[no-untyped-def]
    strategy = "parameter_server" if SERVERS.value else "multi_worker"
    args = [*args, f"--strategy={strategy}"]
    check(args)
    train = [sys.executable, str(Path(__file__).with_name("train.py")), *args]
    sys.exit(launch.run(train, WORKERS.value, SERVERS.value, RESTARTS.value))


if __name__ == "__main__":
    if not {"--", "--help", "-h"} & set(sys.argv):
        command.fail(
            "the settings of train.py stand behind --: launch.py --workers=2 -- --model=mf "
            "--workdir=runs/NAME",
            2,
        )
    command.run_with_args(main)
