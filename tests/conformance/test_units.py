"""Any unit of the ratings will do.

With percent, 0..1 or a shifted scale every model says what it says of stars, in that unit.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, make_split, replace, some_config
from tfrec.evaluation.evaluate import Evaluator
from tfrec.experiments import parts, run

UNITS = {
    "percent": (20.0, 0.0),
    "shifted": (0.2, -1.1),
}  # unit: what a star is of it, and where 0 stars are
MODELS = [
    {"model": "popularity"},
    {"model": "demographic"},
    {"model": "item_knn", "neighbours": 100, "shrinkage": 50.0},  # not what a few rows pick
    {"model": "user_knn", "neighbours": 100, "shrinkage": 50.0},
    {"model": "mf", "implicit_factors": ("user", "product")},
    {"model": "mf", "loss": "ordinal"},
    {"model": "ncf", "loss": "huber"},
    {"model": "hybrid", "loss": "mae"},
]
SMALL = {
    "embedding_dim": 4,
    "batch_size": 64,
    "learning_rate": 0.02,
    "epochs": 2,
    "early_stopping": 1,
    "loss": "mse",
    "l2": 0.1,
}
WORLD = make_dataset(num_users=30, num_products=20, rows=300, user_features=4)


def answers(settings, slope, shift, workdir):
    """The answers for the test rows, the fallbacks' too, and their metrics."""
    config = some_config(**(SMALL | settings))
    rating = (WORLD.interactions.rating * slope + shift).astype(np.float32)
    rows = np.arange(200), np.arange(240, 300), np.arange(200, 240)
    split = make_split(replace(WORLD, rating=rating), *rows)
    tf.keras.utils.set_random_seed(0)
    model = parts.make_trained(split.train, config)
    run.Run(config, split, model).fit(workdir)
    fallbacks = run.Run(config, split, model).fallbacks
    evaluator = Evaluator(model, split, config.evaluation, fallbacks=fallbacks)
    scores = evaluator.scores()
    return scores, evaluator.rating_metrics(scores)


@pytest.mark.parametrize(
    "settings", MODELS, ids=[f"{each['model']}-{each.get('loss', 'mse')}" for each in MODELS]
)
def test_answers_follow_the_unit_of_the_ratings(settings, tmp_path):
    stars, of_stars = answers(settings, 1.0, 0.0, tmp_path / "stars")
    assert np.ptp(stars) > 0.05
    for unit, (slope, shift) in UNITS.items():
        scores, metrics = answers(settings, slope, shift, tmp_path / unit)
        np.testing.assert_allclose((scores - shift) / slope, stars, atol=1e-3, err_msg=unit)
        for name in ("rmse", "mae"):
            assert metrics[name] == pytest.approx(slope * of_stars[name], rel=1e-3), unit
