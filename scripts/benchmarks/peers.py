"""Other libraries on the same rows. Each is imported only in the process that measures it."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.world import structured
from tfrec.errors import TfrecError, UsageError, nearest
from tfrec.system.machine import cores

DIM, LIBMF_EPOCHS = 50, 20
LIBMF = {
    "lambda_p1": 0.0,
    "lambda_q1": 0.0,
    "lambda_p2": 0.04,
    "lambda_q2": 0.04,
    "eta": 0.05,
}  # best on a world of another seed
LIBMF_DEFAULTS: dict[
    str, float
] = {}  # of its Python package: L1 0.04, which costs it two thirds of its speed, and no L2


def libmf_fit(rows: int) -> float:
    """Rows/s of LIBMF's SGD, d 50, on all cores, over 20 epochs."""
    return libmf_result(rows, 0, LIBMF)["rows/s"]


def libmf_result(
    rows: int, test: int, settings: dict[str, float], seed: int = 0
) -> dict[str, float]:
    """20 epochs on all but the last `test` rows.

    Rows/s, seconds, and rmse of the last ones, clipped to the scale (nan without any).
    """
    from libmf.mf import MF

    dataset = structured(rows, seed=seed)
    train, tested = np.arange(rows - test), np.arange(rows - test, rows)
    table = np.stack([dataset.user, dataset.product, dataset.rating], axis=1)[train]
    model = MF(k=DIM, nr_threads=cores(), nr_iters=LIBMF_EPOCHS, quiet=True, **settings)
    began = time.monotonic()
    model.fit(table)
    seconds = time.monotonic() - began
    # the package's own predict reads its table along the wrong axis
    x, z = model.p_factors()[dataset.user[tested]], model.q_factors()[dataset.product[tested]]
    predicted = np.clip(
        np.nan_to_num(np.sum(x * z, axis=1), nan=dataset.rating[train].mean()), 0.5, 5
    )
    rmse = np.sqrt(np.mean((predicted - dataset.rating[tested]) ** 2)) if test else np.nan
    return {"rows/s": len(train) * LIBMF_EPOCHS / seconds, "seconds": seconds, "rmse": float(rmse)}


def torch_fit(model: str, batch_size: int, rows: int, learning_rate: float, epochs: int) -> float:
    """Rows/s of the best epoch but for the first.

    In a process that imports PyTorch before TensorFlow: after it, its steps take twice as long. So
    they do with OMP_WAIT_POLICY=passive, which helps on a busy machine only.
    """
    script = Path(__file__).with_name("torch_models.py")
    arguments = map(str, (model, batch_size, rows, learning_rate, epochs))
    paths = {"PYTHONPATH": os.pathsep.join([str(script.parents[1]), *filter(None, sys.path)])}
    ended = subprocess.run(
        [sys.executable, script, *arguments], env=os.environ | paths, capture_output=True, text=True
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise TfrecError(f"PyTorch: {said[-1]}")
    return float(ended.stdout.splitlines()[-1])


def surprise_fit(rows: int, epochs: int = 3) -> float:
    """Rows/s of Surprise's SVD, d 50, which takes one thread."""
    import pandas as pd
    import surprise  # type: ignore[import-not-found]

    dataset = structured(rows)
    frame = pd.DataFrame(
        {"user": dataset.user, "product": dataset.product, "rating": dataset.rating}
    )
    train = surprise.Dataset.load_from_df(
        frame, surprise.Reader(rating_scale=(0.5, 5))
    ).build_full_trainset()
    model = surprise.SVD(n_factors=DIM, n_epochs=epochs)
    began = time.monotonic()
    model.fit(train)
    return rows * epochs / (time.monotonic() - began)


def implicit_fit(rows: int, epochs: int = 5) -> float:
    """Rows/s of implicit's BPR, d 50, on all cores.

    Its rows are pairs of a positive and a negative.
    """
    from implicit.bpr import BayesianPersonalizedRanking  # type: ignore[import-not-found]

    matrix = interactions(rows, rows)
    model = BayesianPersonalizedRanking(factors=DIM, iterations=epochs, num_threads=cores())
    began = time.monotonic()
    model.fit(matrix, show_progress=False)
    return matrix.nnz * epochs / (time.monotonic() - began)


def implicit_recommend(rows: int, train: int, users: np.ndarray, k: int, repeats: int) -> float:
    """Users/s of `recommend` for these users with what they had in the first `train` rows filtered,
    by ALS factors, d 50.
    """
    from implicit.als import AlternatingLeastSquares

    matrix = interactions(rows, train)
    model = AlternatingLeastSquares(factors=DIM, iterations=1, num_threads=cores())
    model.fit(matrix, show_progress=False)
    seconds = []
    for _ in range(1 + repeats):
        began = time.monotonic()
        model.recommend(users, matrix[users], N=k, filter_already_liked_items=True)
        seconds.append(time.monotonic() - began)
    return len(users) / min(seconds[1:])


def interactions(rows: int, train: int):  # type: ignore[no-untyped-def]
    """The first `train` rows of the world as a CSR matrix [U, P] of ones."""
    from scipy.sparse import csr_matrix

    dataset = structured(rows)
    places = dataset.user[:train], dataset.product[:train]
    matrix = csr_matrix(
        (np.ones(train, np.float32), places), (dataset.num_users, dataset.num_products)
    )
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class Peer:
    """A library to measure beside tfrec.

    Args:
        module: What is imported.
        package: Its name on PyPI.
        fit: rows -> rows/s; None where the batch size matters.
    """

    module: str
    package: str
    models: tuple[str, ...]
    fit: Callable[[int], float] | None


PEERS = {
    "torch": Peer("torch", "torch", ("mf", "ncf", "hybrid"), None),
    "libmf": Peer("libmf", "libmf", ("mf",), libmf_fit),
    "surprise": Peer("surprise", "scikit-surprise", ("mf",), surprise_fit),
    "implicit": Peer("implicit", "implicit", ("mf",), implicit_fit),
}


def check(names: tuple[str, ...]) -> None:
    """Raises UsageError where there is no such peer, or it cannot be imported."""
    for name in names:
        if name not in PEERS:
            raise UsageError(
                f"--peers={name}: expected some of {', '.join(PEERS)}.{nearest(name, PEERS)}"
            )
        if importlib.util.find_spec(PEERS[name].module) is None:
            raise UsageError(
                f"--peers={name}: it is not installed here. In an environment of its own: pip "
                f"install {PEERS[name].package}"
            )
