"""The parts that tfrec brings, by the names that settings give them. To add one, write its class
and its line here.

Their modules are imported when a part is asked for: its name is known before TensorFlow is there.
"""

from collections.abc import Mapping

from tfrec.data.settings import SOURCES, SPLITS
from tfrec.settings import Table

MODELS = Table(
    {
        "popularity": "tfrec.models:Popularity",
        "content": "tfrec.models:Content",
        "demographic": "tfrec.models:Demographic",
        "item_knn": "tfrec.models:ItemKNN",
        "user_knn": "tfrec.models:UserKNN",
        "ease": "tfrec.models:Ease",
        "ials": "tfrec.models:ImplicitALS",
        "bayes_mf": "tfrec.models:BayesianMF",
        "mf": "tfrec.models:MatrixFactorization",
        "ncf": "tfrec.models:NeuralCF",
        "hybrid": "tfrec.models:Hybrid",
    }
)
LOSSES = Table(
    {
        "mse": "tfrec.losses:SquaredError",
        "mae": "tfrec.losses:AbsoluteError",
        "huber": "tfrec.losses:Huber",
        "ordinal": "tfrec.losses:Ordinal",
        "sigmoid": "tfrec.losses:Sigmoid",
        "bpr": "tfrec.losses:BPR",
        "sampled_softmax": "tfrec.losses:SampledSoftmax",
        "in_batch_softmax": "tfrec.losses:InBatchSoftmax",
    }
)
OPTIMIZERS = Table(
    {
        "sgd": "tfrec.optimizers:SGD",
        "momentum": "tfrec.optimizers:Momentum",
        "adagrad": "tfrec.optimizers:Adagrad",
        "rowwise_adagrad": "tfrec.optimizers:RowwiseAdagrad",
        "adam": "tfrec.optimizers:Adam",
        "adamw": "tfrec.optimizers:AdamW",
        "ftrl": "tfrec.optimizers:FTRL",
    }
)
TABLES: dict[str, Mapping[str, type]] = {
    "dataset": SOURCES,
    "split": SPLITS,
    "model": MODELS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
}
BASES = Table(
    {
        "model": "tfrec.models:Recommender",
        "loss": "tfrec.losses:Loss",
        "optimizer": "tfrec.optimizers:Optimizer",
    }
)
