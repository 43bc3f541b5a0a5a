"""A table of finished runs: python scripts/results.py runs/r1-* --metrics=rmse,mae

Runs that differ in --seed alone are one row: mean ± spread (sample standard deviation). Baselines
are rows, too; where runs disagree on one (other test rows, say) it names its run. Below stand the
settings that set the rows apart. With --peers a Markdown table of the runs by protocol, beside
the best that is known of other libraries (experiments/protocols.py), folds as their mean.
"""

import glob
from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.system import quiet

RUNS = flags.DEFINE_string(
    "runs",
    "runs/*",
    "folders of finished runs, where none stand on the command line; * stands for anything",
)
METRICS = flags.DEFINE_list(
    "metrics", [], "test metrics, by their names in metrics.json; none: the usual ones"
)
PEERS = flags.DEFINE_bool("peers", False, "the runs of published protocols, beside other libraries")


def main(args: list[str]) -> None:
    folders = [Path(word) for word in args] or sorted(
        Path(folder) for folder in glob.glob(RUNS.value) if Path(folder).is_dir()
    )
    if not folders:
        raise UsageError(f"--runs={RUNS.value}: there is no such folder.")
    quiet.import_tensorflow()
    from tfrec.experiments import protocols, report

    print(protocols.table(folders) if PEERS.value else report.of_runs(folders, METRICS.value))


if __name__ == "__main__":
    command.run_with_args(main)
