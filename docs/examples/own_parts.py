"""A loss, a metric, a hook and data of one's own: python docs/examples/own_parts.py

The loss by the command line: tfrec train --model=mf --loss=docs/examples/own_parts.py:LogCosh
"""

import numpy as np
import pandas as pd
import tensorflow as tf

import tfrec


class LogCosh(tfrec.losses.RatingLoss):
    """log cosh(y^ - y): squared near 0, absolute far from it."""

    def from_scores(self, scores, y):
        error = scores - y
        return error + tf.nn.softplus(-2.0 * error) - tf.math.log(2.0)


def mean_rank(predictions):
    """At which place of its user's list a product of the validation rows stands, in the mean."""
    return np.mean(predictions.ranking.ranks.rank)


class Said(tfrec.hooks.Hook):
    """Prints the loss of every other epoch."""

    def after_epoch(self, fit):
        epoch = fit.progress.epoch
        if epoch % 2 == 0:
            print(f"epoch {epoch}: loss {fit.progress.history[-1]['loss']:.3f}")


def ratings() -> pd.DataFrame:
    """60 people rate 30 of 50 books each, by two tastes."""
    random = np.random.default_rng(0)
    person = np.repeat(np.arange(60), 30)
    book = np.concatenate([random.permutation(50)[:30] for _ in range(60)])
    stars = 3 + 1.5 * np.where(person % 2 == book % 2, 1, -1) + random.normal(0, 0.3, len(book))
    return pd.DataFrame({"person": person, "book": book, "stars": stars})


def train(frame: pd.DataFrame, task: str, loss: tfrec.losses.Loss, hook: tfrec.hooks.Hook) -> None:
    """Trains a model on a frame, and shows how good it is."""
    names = {"user_column": "person", "product_column": "book", "rating_column": "stars"}
    split = tfrec.Dataset.from_pandas(frame, **names).split("random")
    model = tfrec.models.MatrixFactorization.from_data(split.train, task, embedding_dim=8)
    trainer = tfrec.Trainer(model, loss, tfrec.optimizers.Adam(0.02), batch_size=128, l2=0.01)
    trainer.fit(split.train, split.validation, epochs=20, hooks=[hook, Said()])
    print(tfrec.evaluate(model, split, baselines=True))


if __name__ == "__main__":
    books = ratings()
    train(books, "rating", LogCosh(), tfrec.hooks.EarlyStopping("mae"))
    liked = books[books["stars"] > 3]
    hook = tfrec.hooks.EarlyStopping(mean_rank, more_is_better=False)
    train(liked, "ranking", tfrec.losses.BPR(), hook)
