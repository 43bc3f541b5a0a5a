"""Writes a data set to disk for training on more rows than fit into memory: python
scripts/prepare.py --output=FOLDER --dataset=...

The data set and its split are those of the flags, as in train.py; python scripts/train.py
--dataset=blocks:FOLDER trains on it. --interactions may name several files: a.csv,b.csv or
part-*.csv.gz. A world of any size, whose best possible RMSE is known:

    python scripts/prepare.py --dataset=synthetic --users=1000000 --products=100000 --rows=100000000
    --seed=0 --output=FOLDER
"""

from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.experiments import flags as settings
from tfrec.experiments.config import AllData, make_config
from tfrec.settings import fields
from tfrec.system import quiet

FIELDS = fields(AllData)

OUTPUT = flags.DEFINE_string("output", None, "folder to write; it must not be there yet")
ROWS = flags.DEFINE_integer(
    "rows", 1_000_000, "synthetic: how many ratings", lower_bound=1, upper_bound=2**31 - 1
)
SEED = flags.DEFINE_integer(
    "seed", 0, "synthetic: seed of all draws", lower_bound=0, upper_bound=2**31 - 1
)


def main() -> None:
    config, world = make_config(**settings.explicit_flags(flags.FLAGS, FIELDS)).data, None
    if not OUTPUT.value:
        raise UsageError("--output=FOLDER is needed.")
    quiet.import_tensorflow()
    from tfrec.data import prepare
    from tfrec.data.sources.synthetic import SyntheticData

    if config.dataset == "synthetic":
        world = SyntheticData(
            int(config.users or 10_000), int(config.products or 1_000), ROWS.value, SEED.value
        )
    elif flags.FLAGS["rows"].present or flags.FLAGS["seed"].present:
        raise UsageError("--rows and --seed go with --dataset=synthetic.")
    print(prepare.prepare(config, Path(OUTPUT.value), world))


if __name__ == "__main__":
    settings.define_some(FIELDS)
    command.run(main, lambda: f"{flags.FLAGS.main_module_help()}\n{settings.help_of(AllData)}")
