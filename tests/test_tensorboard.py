import numpy as np
import pandas as pd
import tensorflow as tf

from tests.conftest import make_dataset, replace
from tfrec import tensorboard
from tfrec.models.content import Content
from tfrec.models.mf import MatrixFactorization
from tfrec.models.popularity import Popularity


def model_of(dataset):
    model = MatrixFactorization(dataset.num_users, dataset.num_products, dim=4)
    for weight in model.trainable_weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [3, weight.shape.rank]))
    return model


def test_recommendations_leave_out_what_was_seen():
    dataset = make_dataset()
    model, rows = model_of(dataset), np.arange(40)
    lines = tensorboard.recommendations(model, dataset, rows, k=3).splitlines()[2:]
    count = np.bincount(dataset.user[rows], minlength=dataset.num_users)
    for line in lines:
        raw, number, titles = (cell.strip() for cell in line.strip("|").split("|"))
        user = int(np.flatnonzero(dataset.user_ids == int(raw))[0])
        assert int(number) == count[user] > 0
        scores = model.score_products({"user": tf.constant([user])}).numpy()[0]
        seen = set(dataset.product[rows][dataset.user[rows] == user])
        assert titles.split("; ") == [f"Product {p}" for p in np.argsort(-scores) if p not in seen][:3]
    assert [int(line.split("|")[2]) for line in (lines[0], lines[-1])] == [count.max(), count[count > 0].min()]


def test_the_projector_gets_the_most_popular_products_with_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "PRODUCTS_SHOWN", 5)
    dataset = make_dataset()
    dataset = replace(dataset, products=dataset.products.assign(genres=[["a", "b"]] * 9, year=1999.0, title=[f"P\t{p}" for p in range(9)]))
    model = model_of(dataset)
    tensorboard.project(tmp_path / "logs", model, dataset, np.arange(len(dataset)))
    count = np.bincount(dataset.product)
    shown = np.argsort(-count, kind="stable")[:5]
    labels = pd.read_csv(tmp_path / "logs" / "products.tsv", sep="\t")
    assert labels.to_dict("list") == {"title": [f"P {p}" for p in shown], "genres": ["a|b"] * 5, "popularity": count[shown].tolist()}
    vectors = np.loadtxt(tmp_path / "logs" / "vectors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, model.product_vectors().numpy()[shown], rtol=1e-4)
    assert "products.tsv" in (tmp_path / "logs" / "projector_config.pbtxt").read_text()


def test_a_model_without_product_vectors_projects_nothing(tmp_path):
    dataset = make_dataset()
    tensorboard.project(tmp_path / "logs", Popularity(dataset.num_users, dataset.num_products), dataset, np.arange(9))
    assert not (tmp_path / "logs").exists()
    tensorboard.project(tmp_path / "logs", Content(dataset.num_users, dataset.features), dataset, np.arange(9))
    assert (tmp_path / "logs" / "vectors.tsv").exists()
