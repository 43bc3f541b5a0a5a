import struct

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.conftest import make_dataset, sparse
from tfrec.evaluation.evaluate import Evaluator, Ranking
from tfrec.evaluation.ranking import Ranks
from tfrec.experiments import diagram, parts, plots
from tfrec.experiments.config import make_config
from tfrec.experiments.tables import MODELS


def size_of(path):
    """(width, height) in the head of a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def written(figure, path):
    """The figure drawn and saved; checks its size in pixels."""
    figure.savefig(path / "it.png", dpi=plots.DPI)
    expected = np.array(figure.get_size_inches()) * plots.DPI
    np.testing.assert_allclose(size_of(path / "it.png"), expected, atol=1)
    return figure


def make_ranking(pairs, ranks):
    pairs = np.array(pairs, int).reshape(-1, 2)
    return Ranking(
        Ranks(pairs[:, 0], np.array(ranks, float), np.full(len(pairs), 99)),
        pairs,
        np.zeros((0, 3), np.int32),
    )


@pytest.mark.parametrize("block", (7, 1_000_000))
@pytest.mark.parametrize("cells", ((300, 500), (4, 3), (1, 1)))
@pytest.mark.parametrize(("users", "products", "rows"), ((1, 2, 2), (12, 9, 60), (5, 40, 0)))
def test_users_products_shows_the_share_of_rated_pairs(
    users, products, rows, cells, block, tmp_path, monkeypatch
):
    monkeypatch.setattr(plots, "CELLS", cells)
    monkeypatch.setattr(plots, "ROWS_AT_ONCE", block)
    data = make_dataset(users, products, rows).interactions
    figure = written(plots.users_products([(data.user, data.product)], users, products), tmp_path)
    tall, wide = -(-users // cells[0]), -(-products // cells[1])
    down, across = -(-users // tall), -(-products // wide)
    rated, pairs = np.zeros((down, across)), np.zeros((down, across))
    for user in range(users):
        for product in range(products):
            cell = user // tall, product // wide
            pairs[cell] += 1
            rated[cell] += ((data.user == user) & (data.product == product)).any()
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(image.get_array().filled(0), 100 * rated / pairs)
    assert list(image.get_extent()) == [0, wide * across, tall * down, 0]
    assert figure.axes[0].get_xlim() + figure.axes[0].get_ylim() == (0, products, users, 0)
    assert figure.axes[0].get_title().startswith(f"{rows:,} of {users * products:,} pairs")


def test_millions_of_rows_fit_into_the_same_picture(tmp_path):
    random = np.random.RandomState(0)
    user, product = random.randint(0, 162_000, 2_000_000), random.randint(0, 60_000, 2_000_000)
    figure = written(
        plots.users_products([(user.astype(np.int32), product.astype(np.int32))], 162_000, 60_000),
        tmp_path,
    )
    assert figure.axes[0].images[0].get_array().shape == (300, 500)


@pytest.mark.parametrize(("products", "features"), ((1, 1), (9, 3), (700, 40), (10, 900)))
def test_products_features_shows_the_share_that_is_not_0(products, features, tmp_path):
    table = np.random.RandomState(0).randint(-1, 2, (products, features)).astype(np.float32)
    figure = written(
        plots.products_features(sparse(table, [f"genre {i}" for i in range(features)])), tmp_path
    )
    drawn = figure.axes[0].images[0].get_array().filled(0)
    assert drawn.shape == ({700: 234}.get(products, products), {900: 450}.get(features, features))
    assert (
        figure.axes[0].get_title()
        == f"{products:,} products x {features:,} features: {(table != 0).mean():.1%} of the "
        "entries are not 0"
    )
    if features <= 40:
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
            f"genre {i}" for i in range(features)
        ]
    if drawn.shape == table.shape:
        np.testing.assert_array_equal(drawn, 100 * (table != 0))


def test_features_that_are_all_0_are_a_white_picture(tmp_path):
    figure = written(plots.products_features(sparse(np.zeros((4, 2)))), tmp_path)
    assert figure.axes[0].images[0].get_array().count() == 0


@pytest.mark.parametrize("epochs", (1, 4, 400))
@pytest.mark.parametrize("figures", ({}, {"ndcg@10": 0.5}))
def test_learning_curves(epochs, figures, tmp_path):
    history = [{"loss": 1 / (epoch + 1), **figures} for epoch in range(epochs)]
    figure = written(plots.learning_curves(history, 1), tmp_path)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "training loss",
        *(f"validation {name}" for name in figures),
    ]
    for axes, name in zip(figure.axes, history[0]):
        x, y = axes.lines[0].get_data()
        assert (x.tolist(), list(y)) == (
            list(range(1, epochs + 1)),
            [entry[name] for entry in history],
        )
        assert axes.lines[1].get_xdata() == [1, 1]


@pytest.mark.parametrize("block", (100, 1_000_000))
@pytest.mark.parametrize("rows", (1, 2, 3000))
@pytest.mark.parametrize("levels", (1, 10, 1000))
def test_predicted_against_true(levels, rows, block, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "ROWS_AT_ONCE", block)
    random = np.random.RandomState(0)
    true = (random.randint(1, levels + 1, rows) / 2).astype(np.float32)
    predicted = np.clip(true + random.normal(size=rows), true.min(), true.max()).astype(np.float32)
    axes = written(plots.predicted_against_true(true, predicted), tmp_path).axes[0]
    assert axes.collections[0].get_array().filled(0).sum() == rows
    x, y = axes.lines[0].get_data()
    if levels == 10 and rows == 3000:
        np.testing.assert_allclose(x, np.unique(true))
        np.testing.assert_allclose(y, [predicted[true == level].mean() for level in x], rtol=1e-5)


def test_slices_are_bars(tmp_path):
    result = {
        "users": {
            "warm": {"rows": 3, "rmse": 0.5, "ndcg@3": 0.25},
            "cold": {"rows": 2, "rmse": 1.5},
        },
        "products": {},
    }
    figure = written(plots.slices(result), tmp_path)
    assert [axes.get_xlabel().split(",")[0].split(" ")[0] for axes in figure.axes] == [
        "RMSE",
        "ndcg@3",
    ]
    assert [[bar.get_width() for bar in axes.patches] for axes in figure.axes] == [
        [1.5, 0.5],
        [0, 0.25],
    ]
    assert [text.get_text() for text in figure.axes[1].texts] == ["none", "0.250"]
    written(plots.slices({"users": {}, "products": {}}), tmp_path)


def test_popularity_bins_are_powers_of_two(tmp_path):
    trained, product = np.array([0, 1, 3, 2, 9]), np.array([0, 0, 2, 3, 4])
    true, predicted = np.array([3, 3, 4, 2, 5], np.float32), np.array([3, 1, 3, 2, 5], np.float32)
    ranked = make_ranking([[0, 0], [0, 3], [1, 2], [1, 4]], [9, 1, 2, 3])
    figure = written(plots.popularity(trained, product, true, predicted, ranked, 2), tmp_path)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == [
        "0",
        "1",
        "2-3",
        "4-7",
        "8-15",
    ]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    np.testing.assert_allclose(heights, [[2**0.5, 0, 0.5**0.5, 0, 0], [0, 0, 100, 0, 0]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["2", "", "2", "", "1"]


@pytest.mark.parametrize("predicted", (None, np.ones(1, np.float32)))
@pytest.mark.parametrize("pairs", ([], [[0, 0]]))
def test_popularity_with_next_to_nothing(predicted, pairs, tmp_path):
    one = np.ones(1, np.float32)
    written(
        plots.popularity(
            np.zeros(2, int),
            np.zeros(1, int),
            one,
            predicted,
            make_ranking(pairs, [1] * len(pairs)),
            5,
        ),
        tmp_path,
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_diagram_has_every_weight_with_its_shape(name, tmp_path):
    train = make_dataset(user_features=2).interactions
    model = MODELS[name].from_data(train)
    figure = written(diagram.network(model), tmp_path)
    shapes = [
        shape
        for layers in diagram.parts_of(model).values()
        for layer in layers
        for shape in layer.shapes.values()
    ]
    tables = list((model.embeddings("user") | model.embeddings("product")).values())
    others = [
        weight.shape
        for weight in model.named_weights().values()
        if not any(weight is table.table.value for table in tables)
    ]
    parts = [(table.table.shape[0], width) for table in tables for width in table.widths.values()]
    assert sorted(shapes) == sorted(
        " x ".join(map(str, shape)) or "1" for shape in (*others, *parts)
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    drawn = [
        part for text in texts for part in text.split(" + ") if part.replace(" x ", "").isdigit()
    ]
    assert sorted(drawn) == sorted(shapes)
    width, height = figure.get_size_inches()
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert (
            box.x0 >= 0
            and box.y0 >= 0
            and box.x1 <= width * figure.dpi
            and box.y1 <= height * figure.dpi
        ), text


@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_a_runs_pictures_are_in_its_folder_and_in_tensorboard(task, tmp_path):
    config = make_config(split="random", task=task)
    split = make_dataset().split_by(config.data)
    model = parts.make_model(split.train, config)
    evaluator = Evaluator(model, split, config.evaluation)
    predictions = evaluator.predictions()
    result = {
        "slices": evaluator.slices(predictions),
        "history": [{"loss": 1.0}],
        "train": {"best_epoch": 1},
        "model": "ncf",
        "test": evaluator.metrics(predictions),
        "baselines": {"bias": {"rmse": 1.0}},
    }
    plots.save(tmp_path, 7, plots.of_run(model, split, predictions, result, evaluator))
    names = {
        "baselines",
        "users_products",
        "products_features",
        "network",
        "learning_curves",
        "slices",
        "popularity",
    }
    names |= {"predicted_true"} if task == "rating" else set()
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{name}.png" for name in names
    }
    assert all(min(size_of(path)) > 200 for path in (tmp_path / "plots").iterdir())
    (events,) = (tmp_path / "logs").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        found |= {value.tag: (event.step, value.tensor.string_val) for value in event.summary.value}
    assert found.keys() == {f"visuals/{name}" for name in names}
    step, (width, height, image) = found["visuals/slices"]
    assert step == 7
    assert (int(width), int(height)) == size_of(tmp_path / "plots" / "slices.png")
    assert tf.io.decode_png(image).shape == (int(height), int(width), 3)


def test_on_large_data_the_bins_of_popularity_quadruple_and_still_fit(tmp_path):
    trained = np.array([0, 1, 5, 100_000])
    ones = np.ones(4, np.float32)
    figure = written(
        plots.popularity(trained, np.arange(4), ones, ones, make_ranking([[0, 3]], [1]), 5),
        tmp_path,
    )
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels[:4] == ["0", "1-3", "4-15", "16-63"]
    assert labels[-1] == "65,536-262,143"
