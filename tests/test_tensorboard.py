import numpy as np
import pandas as pd
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata

from tests.conftest import make_dataset, make_split, replace, with_output
from tfrec.experiments import tensorboard
from tfrec.models.content import Content
from tfrec.models.mf import MatrixFactorization
from tfrec.models.popularity import Popularity


def model_of(rows, task="rating"):
    model = MatrixFactorization.from_data(rows, task, embedding_dim=4)
    for weight in model.trainable_weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [3, weight.shape.rank]))
    return model


def test_recommendations_leave_out_what_was_seen():
    split = make_split(make_dataset(), train=np.arange(40))
    model, train, catalog = model_of(split.train), split.train, split.catalog
    lines = tensorboard.recommendations(model, split, k=3).splitlines()[2:]
    count = np.bincount(train.user, minlength=catalog.num_users)
    for line in lines:
        raw, number, titles = (cell.strip() for cell in line.strip("|").split("|"))
        user = int(np.flatnonzero(catalog.user_ids == int(raw))[0])
        assert int(number) == count[user] > 0
        scores = model.score_all({"user": tf.constant([user])}).numpy()[0]
        seen = set(train.product[train.user == user])
        assert (
            titles.split("; ") == [f"Product {p}" for p in np.argsort(-scores) if p not in seen][:3]
        )
    assert [int(line.split("|")[2]) for line in (lines[0], lines[-1])] == [
        count.max(),
        count[count > 0].min(),
    ]


def test_recommendations_follow_what_the_scores_say():
    split = make_split(make_dataset(), train=np.arange(40))
    model = model_of(split.train)
    before = tensorboard.recommendations(model, split)
    assert tensorboard.recommendations(with_output(model, split.train), split) == before
    by_product = with_output(model, split.train, "product_minmax")
    assert tensorboard.recommendations(by_product, split) != before


def test_the_projector_gets_the_most_popular_products_with_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "PRODUCTS_SHOWN", 5)
    dataset = make_dataset()
    dataset = replace(
        dataset,
        products=dataset.catalog.products.assign(
            genres=[["a", "b"]] * 9, year=1999.0, title=[f"P\t{p}" for p in range(9)]
        ),
    )
    model = model_of(dataset.interactions)
    tensorboard.project(tmp_path / "logs", model, dataset.interactions)
    count = np.bincount(dataset.interactions.product)
    shown = np.argsort(-count, kind="stable")[:5]
    labels = pd.read_csv(tmp_path / "logs" / "products.tsv", sep="\t")
    assert labels.to_dict("list") == {
        "title": [f"P {p}" for p in shown],
        "genres": ["a|b"] * 5,
        "first of genres": ["a"] * 5,
        "popularity": count[shown].tolist(),
    }
    vectors = np.loadtxt(tmp_path / "logs" / "vectors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, model.product_embeddings().numpy()[shown], rtol=1e-4)
    assert "products.tsv" in (tmp_path / "logs" / "projector_config.pbtxt").read_text()


def test_a_model_without_product_vectors_projects_nothing(tmp_path):
    train = make_split(make_dataset(), train=np.arange(9)).train
    popularity = Popularity.from_data(train)
    tensorboard.project(tmp_path / "logs", popularity, train)
    assert not (tmp_path / "logs").exists()
    content = Content.from_data(train)
    tensorboard.project(tmp_path / "logs", content, train)
    assert (tmp_path / "logs" / "vectors.tsv").exists()


def test_a_search_and_its_trials_are_read_by_the_hparams_plugin(tmp_path):
    """Through TensorBoard's own reader.

    The domains, each trial's settings, and the figure under the tag that the search names.
    """
    choices = {
        "terms": (("bias", "dot"), ("bias",)),
        "biases": (True, False),
        "embedding_dim": (8, 16),
    }
    for _ in range(2):
        tensorboard.search(tmp_path, choices, {"epochs": (1, 9), "l2": (0.1, 2.0)}, "ndcg@10")
    settings = {
        "terms": ("bias", "dot"),
        "biases": False,
        "embedding_dim": 16,
        "epochs": 3,
        "l2": 0.25,
    }
    metrics = {"validation ndcg@10": 0.125}
    tensorboard.result(tmp_path / "trials" / "000" / "logs", settings, metrics, step=2)
    reader = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    reader.Reload()
    content = reader.PluginRunToTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(content["."][metadata.EXPERIMENT_TAG])
    (metric,) = experiment.metric_infos
    assert metric.display_name == "validation ndcg@10"
    of = {info.name: info for info in experiment.hparam_infos}
    assert [value.string_value for value in of["terms"].domain_discrete.values] == [
        "bias",
        "bias+dot",
    ]
    assert (of["l2"].domain_interval.min_value, of["epochs"].domain_interval.max_value) == (0.1, 9)
    run = "trials/000/logs"
    start = metadata.parse_session_start_info_plugin_data(
        content[run][metadata.SESSION_START_INFO_TAG]
    )
    assert (
        start.hparams["terms"].string_value == "bias+dot"
        and start.hparams["l2"].number_value == 0.25
    )
    (event,) = reader.Tensors(run, metric.name.tag)
    assert (event.step, tf.make_ndarray(event.tensor_proto)) == (2, 0.125)
    assert len(list(tmp_path.glob("events*"))) == 1
