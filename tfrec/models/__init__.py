"""Batch -> score. The table of models: to add one, write its file and its line here."""

from tfrec.models.base import Recommender
from tfrec.models.content import Content
from tfrec.models.demographic import Demographic
from tfrec.models.ease import Ease
from tfrec.models.hybrid import Hybrid
from tfrec.models.ials import ImplicitALS
from tfrec.models.mf import MatrixFactorization
from tfrec.models.ncf import NeuralCF
from tfrec.models.neighbours import ItemKNN, UserKNN
from tfrec.models.popularity import Popularity

MODELS: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "content": Content,
    "demographic": Demographic,
    "item_knn": ItemKNN,
    "user_knn": UserKNN,
    "ease": Ease,
    "ials": ImplicitALS,
    "mf": MatrixFactorization,
    "ncf": NeuralCF,
    "hybrid": Hybrid,
}

__all__ = [
    "MODELS",
    "Content",
    "Demographic",
    "Ease",
    "Hybrid",
    "ImplicitALS",
    "ItemKNN",
    "MatrixFactorization",
    "NeuralCF",
    "Popularity",
    "Recommender",
    "UserKNN",
]
