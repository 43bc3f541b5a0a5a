"""Trains a model, evaluates it beside the baselines and exports it: python scripts/train.py --model=ncf --strategy=mirrored"""

from tfrec import command, report, run


def main(config):  # type: ignore[no-untyped-def]
    print(report.table(run.train(config)))


if __name__ == "__main__":
    command.train_settings(main)
