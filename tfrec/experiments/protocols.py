"""The protocols that other libraries were measured by, and runs beside the best of them.

The peers' figures are those that the project was given at its start, of the same rows and the
libraries as PyPI has them: Surprise, myFM (a Bayesian factorisation machine by MCMC) and implicit;
EASE is H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrec.errors import UsageError
from tfrec.experiments import report, workdirs
from tfrec.experiments.config import Config
from tfrec.system.text import spread


@dataclass(frozen=True)
class Protocol:
    """settings: what a run on it has, files by name and folds as the tuple of all; metrics: what it
    is judged by, the first decides.

    peers: their figures in the order of the metrics, with the digits that are known.
    """

    what: str
    settings: dict[str, Any]
    metrics: tuple[str, ...]
    peers: dict[str, tuple[str, ...]]


SMALL, RATED = {"dataset": "latest-small", "evaluation_context": "true"}, {"task": "rating"}
RANKED = {"task": "ranking", "candidates_file": "", "relevance_threshold": None}
PROTOCOLS = {
    "R1": Protocol(
        "latest-small, random 20 %",
        {**SMALL, **RATED, "split": "random", "split_seed": 0, "test_fraction": 0.2},
        ("rmse", "mae"),
        {
            "Surprise BaselineOnly": ("0.8815", "0.678"),
            "Surprise SVD": ("0.8813", "0.676"),
            "Surprise KNNBaseline": ("0.8826", "0.673"),
            "Surprise SVD++": ("0.8683", "0.664"),
            "myFM, ids": ("0.8452", "0.644"),
            "myFM, ids and genres": ("0.8230", "0.628"),
        },
    ),
    "R2": Protocol(
        "latest-small, latest 20 %",
        {**SMALL, **RATED, "split": "temporal", "test_fraction": 0.2},
        ("rmse",),
        {
            "Surprise BaselineOnly": ("1.0160",),
            "Surprise SVD": ("1.0139",),
            "Surprise KNNBaseline": ("1.0168",),
            "Surprise SVD++": ("1.0140",),
            "myFM, ids": ("0.9984",),
            "myFM, ids and genres": ("0.9960",),
        },
    ),
    "R3": Protocol(
        "latest-small, mean of 5 folds",
        {**SMALL, **RATED, "split": "kfold", "split_seed": 0, "folds": 5, "fold": (0, 1, 2, 3, 4)},
        ("rmse",),
        {
            "Surprise BaselineOnly": ("0.8727",),
            "Surprise SVD": ("0.8726",),
            "Surprise KNNBaseline": ("0.8748",),
            "Surprise SVD++": ("0.8626",),
        },
    ),
    "R4": Protocol(
        "ml-100k, mean of u1 .. u5",
        {
            **SMALL,
            **RATED,
            "dataset": "100k",
            "split": "files",
            "test_file": tuple(f"u{fold}.test" for fold in range(1, 6)),
        },
        ("rmse",),
        {
            "Surprise SVD": ("0.9380",),
            "Surprise KNNBaseline": ("0.9323",),
            "Surprise SVD++": ("0.9218",),
        },
    ),
    "N1": Protocol(
        "latest-small, each user's last row",
        {**SMALL, **RANKED, "split": "leave_one_out"},
        ("hr@10", "ndcg@10"),
        {
            "popularity": ("0.043", "0.019"),
            "item-kNN": ("0.066", "0.032"),
            "implicit ALS": ("0.072", "0.035"),
            "implicit BPR": ("0.061", "0.025"),
            "EASE": ("0.085", "0.041"),
        },
    ),
    "N2": Protocol(
        "ml-100k, each user's last row",
        {**SMALL, **RANKED, "dataset": "100k", "split": "leave_one_out"},
        ("hr@10", "ndcg@10"),
        {
            "popularity": ("0.086", "0.044"),
            "item-kNN": ("0.121", "0.066"),
            "implicit BPR": ("0.102", "0.051"),
            "implicit ALS": ("0.150", "0.073"),
            "EASE": ("0.149", "0.072"),
        },
    ),
    "N4": Protocol(
        "latest-small, each user's latest 20 %, ratings from 4",
        {
            **SMALL,
            **RANKED,
            "split": "user_temporal",
            "test_fraction": 0.2,
            "relevance_threshold": 4.0,
        },
        ("ndcg@10", "recall@20"),
        {
            "popularity": ("0.075", "0.084"),
            "item-kNN": ("0.087", "0.121"),
            "implicit BPR": ("0.070", "0.107"),
            "implicit ALS": ("0.085", "0.137"),
            "EASE": ("0.102", "0.144"),
        },
    ),
}
FOLDS = ("fold", "test_file", "train_file")


def of(config: Config) -> str | None:
    """Returns the name of the protocol that a run's settings follow."""
    for name, protocol in PROTOCOLS.items():
        if all(
            _fits(_value(config, setting), wanted) for setting, wanted in protocol.settings.items()
        ):
            return name
    return None


def table(folders: list[Path]) -> str:
    """Returns a Markdown table by protocol, best first: mean ± spread over the seeds of each
    setting, and the best peer.

    Raises:
        UsageError: a folder holds no finished run, or no run follows a protocol.
    """
    runs: dict[
        tuple[str, str], dict[int, dict[Any, dict[str, float]]]
    ] = {}  # (protocol, settings) -> seed -> fold -> test metrics
    for folder in folders:
        config = workdirs.settings(folder)
        name = of(config)
        if name:
            settings = PROTOCOLS[name].settings
            but = {"seed", "workdir", "data_dir", *FOLDS, *settings}
            model = " ".join(report.changed(config, but)).replace("|", "\\|")
            folds = runs.setdefault((name, model), {}).setdefault(config.get("seed", 0), {})
            folds[tuple(_value(config, setting) for setting in FOLDS[:2])] = workdirs.metrics(
                folder
            )["test"]
    if not runs:
        known = ", ".join(f"{name} ({protocol.what})" for name, protocol in PROTOCOLS.items())
        raise UsageError(f"none of these runs follows a protocol. There are {known}.")
    rows = sorted(_row(name, model, seeds) for (name, model), seeds in runs.items())
    heads = ["protocol", "model", "metric", "mean ± spread over seeds", "best known peer"]
    return report.markdown([heads, ["---"] * len(heads), *(cells for *_, cells in rows)])


def _row(
    name: str, model: str, seeds: dict[int, dict[Any, dict[str, float]]]
) -> tuple[str, float, list[str]]:
    """(protocol, what to sort by, cells)"""
    protocol = PROTOCOLS[name]
    for metric in protocol.metrics:
        if any(metric not in test for folds in seeds.values() for test in folds.values()):
            raise UsageError(
                f"{name}, {model}: a run has no {metric}. Train it with other cut-offs, such as "
                "--k=10,20."
            )
    sign = 1 if protocol.metrics[0] == "rmse" else -1
    figures = [
        [statistics.fmean(test[metric] for test in folds.values()) for folds in seeds.values()]
        for metric in protocol.metrics
    ]
    peer, known = min(protocol.peers.items(), key=lambda of: sign * float(of[1][0]))
    wanted = max(
        len(value) if isinstance(value, tuple) else 1 for value in protocol.settings.values()
    )
    there = min(map(len, seeds.values()))
    what = f"{name}: {protocol.what}" + (f" ({there} of {wanted} folds)" if there < wanted else "")
    means = [spread(list(of_seeds)) for of_seeds in figures]
    cells = [
        what,
        f"`{model}`",
        " / ".join(protocol.metrics),
        " / ".join(means),
        f"{peer}: {' / '.join(known)}",
    ]
    return name, sign * statistics.fmean(figures[0]), cells


def _fits(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _value(config: Config, setting: str) -> Any:
    value = config.get(setting, getattr(config.data, setting, None))
    return Path(value).name if setting.endswith("_file") else value
