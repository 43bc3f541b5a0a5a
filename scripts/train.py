"""Trains a model, evaluates it beside the baselines and exports it.

python scripts/train.py --model=ncf --strategy=mirrored
"""

from tfrec import cli as command
from tfrec.system.text import said


def main(config):  # type: ignore[no-untyped-def]
    from tfrec.experiments import report, run

    made = run.train(config)
    if made.is_chief:  # one process of a cluster speaks
        print(report.table(made.record))
        print(report.verdict(made.record))
        folder = said(str(made.folder))
        print(
            f"pictures, logs and the SavedModel are in {folder}; next: "
            f"{command.program('recommend')} --workdir={folder} --user=ID"
        )


if __name__ == "__main__":
    command.train_settings(main)
