"""Trains a model, evaluates it beside the baselines and exports it.

python scripts/train.py --model=ncf --strategy=mirrored
"""

from tfrec import cli as command
from tfrec.experiments import report, run


def main(config):  # type: ignore[no-untyped-def]
    result = run.train(config)
    if result:  # one process of a cluster speaks
        print(report.table(result))


if __name__ == "__main__":
    command.train_settings(main)
