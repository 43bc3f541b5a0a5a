"""Where NeuMF may start (--pretrained).

At two finished runs, one of its GMF alone (an mf) and one of its MLP alone (an ncf --nocosine).
"""

from pathlib import Path

import numpy as np

from tfrec.data.interactions import Split
from tfrec.errors import UsageError
from tfrec.experiments import workdirs
from tfrec.experiments.config import Config, flag_line
from tfrec.models.ncf import NeuralCF
from tfrec.training import checkpoints
from tfrec.training.state import training_fingerprint


def start(model: NeuralCF, split: Split, config: Config) -> None:
    """Sets the model's weights to those of the runs that --pretrained names, each of which counts
    for a half.

    Raises:
        UsageError: a folder holds no finished run, or one of another model or of other data.
    """
    both = {"task": config.task, "biases": config.biases}
    gmf = both | {
        "model": "mf",
        "similarity": "dot",
        "implicit_factors": (),
        "embedding_dim": config.gmf_dim,
    }
    mlp = both | {
        "model": "ncf",
        "gmf_dim": 0,
        "cosine": False,
        "embedding_dim": config.embedding_dim,
        "mlp_layers": config.mlp_layers,
    }
    first, second = (
        _weights(Path(folder), wanted, split, config)
        for folder, wanted in zip(config.pretrained, (gmf, mlp))
    )
    model.start_from(first, second)


def _weights(
    workdir: Path, wanted: dict[str, object], split: Split, config: Config
) -> dict[str, np.ndarray]:
    """Returns {path: the run's kept weight}."""
    there = workdirs.settings(workdir)
    for name, value in (wanted | {"target_scaling": config.get("target_scaling", None)}).items():
        found = there.get(name, None)
        if found != value:
            raise UsageError(
                f"--pretrained: the run in {workdir} has {flag_line(name, found)}, and "
                f"{flag_line(name, value)} is needed."
            )
    folder = workdir / "checkpoints"
    state = checkpoints.last(folder)
    if there.data != config.data or state["data"] != training_fingerprint(split):
        raise UsageError(
            f"--pretrained: the run in {workdir} is of other data, or of other rows of them. "
            "Train it on these."
        )
    return checkpoints.weights(folder, state["best_step"])
