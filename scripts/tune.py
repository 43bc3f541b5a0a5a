"""Searches for settings on the validation rows: python scripts/tune.py --model=mf --trials=20
--range=l2=log:0.01..2

Each --range is a setting and its values, and can be given again for another setting:
    --range=learning_rate=log:1e-4..1e-2    drawn evenly by its logarithm
    --range=epochs=5..30                    drawn evenly; whole numbers where the setting is one
    --range=embedding_dim=16,32,64          one of these
    --range=terms=bias+dot,bias+dot+feature_factors   one of these lists
What no --range names is as the other settings say. Trials are runs in --workdir/trials that stop
before their test rows; trial n depends on --seed and n alone. The same command goes on with what is
not finished, a greater --trials adds to it. The best settings are written to best.flags in
--workdir, and tensorboard --logdir=WORKDIR shows all of them under HParams.
"""

import shlex
import sys

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.experiments.config import make_config
from tfrec.settings import fields

TRIALS = flags.DEFINE_integer("trials", 20, "how many settings to try", lower_bound=1)
RANGE = flags.DEFINE_multi_string(
    "range", [], "NAME=LOW..HIGH, NAME=log:LOW..HIGH or NAME=A,B,C; once a setting"
)
SEARCH = flags.DEFINE_enum(
    "search",
    "random",
    ("random", "halving"),
    "all trials for --epochs, or the best third of them for three times as long",
)


def main(given) -> None:  # type: ignore[no-untyped-def]
    if not RANGE.value:
        raise UsageError("say what to search: --range=learning_rate=log:1e-4..1e-2, say.")
    from tfrec.experiments import tuning

    config = make_config(**given)
    parts = [config.parts[role] for role in ("model", "loss", "optimizer") if role in config.parts]
    own = {name: spec for part in parts for name, spec in fields(part).items()}
    ranges = [tuning.parse(text, own) for text in RANGE.value]
    print(
        tuning.search(config, ranges, TRIALS.value, SEARCH.value, f"python {shlex.join(sys.argv)}")
    )


if __name__ == "__main__":
    command.with_settings(main)
