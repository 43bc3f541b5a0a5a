"""Models: batch -> score, one file each."""

from tfrec.models.base import Recommender
from tfrec.models.bayes_mf import BayesianMF
from tfrec.models.content import Content
from tfrec.models.demographic import Demographic
from tfrec.models.ease import Ease
from tfrec.models.hybrid import Hybrid
from tfrec.models.ials import ImplicitALS
from tfrec.models.mf import MatrixFactorization
from tfrec.models.ncf import NeuralCF
from tfrec.models.neighbours import ItemKNN, UserKNN
from tfrec.models.popularity import Popularity

__all__ = [
    "BayesianMF",
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
