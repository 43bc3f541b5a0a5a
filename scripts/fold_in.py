"""How well new users are served: python scripts/fold_in.py --models=mf,ncf --workdir=runs/fold_in

A tenth of the users of the built-in data are held out. Half of each one's products are given to
`recommend_for_history` as likes; NDCG@10 is taken on the other half, beside the same model trained
with the given rows, and beside popularity.
"""

from pathlib import Path

from absl import flags
from benchmarks import fold_in

from tfrec import cli as command

MODELS = flags.DEFINE_list(
    "models", ["mf", "ncf", "hybrid", "item_knn", "user_knn"], "models, trained to rank"
)
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/fold_in", "folder of the runs; finished ones are not trained again"
)


def main() -> None:
    print(fold_in.study(Path(WORKDIR.value), MODELS.value))


if __name__ == "__main__":
    command.run(main)
