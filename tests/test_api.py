"""The library as its users see it."""

import contextlib
import random
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfrec
from tests.conftest import make_dataset, make_split
from tests.end_to_end.scripts import script
from tests.worlds import write_1m
from tfrec.experiments.exported import ExportedModel

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    random = np.random.RandomState(0)
    pairs = random.permutation(30 * 20)[:400]
    return pd.DataFrame(
        {
            "customer": [f"c{user}" for user in pairs // 20],
            "sku": pairs % 20 + 100,
            "rating": random.randint(1, 6, 400),
            "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(400), unit="h"),
        }
    )


NAMES = {"user_column": "customer", "product_column": "sku"}


@pytest.fixture(scope="module")
def split(frame) -> tfrec.Split:
    return tfrec.Dataset.from_pandas(frame, **NAMES).split("random")


@pytest.fixture(scope="module")
def model(split) -> tfrec.Recommender:
    made = tfrec.models.MatrixFactorization.from_data(split.train, embedding_dim=4)
    tfrec.Trainer(made, batch_size=64).fit(split.train, epochs=1, hooks=[])
    return made


def test_the_package_shows_its_public_names_and_no_others():
    assert dir(tfrec) == tfrec.__all__ == sorted(tfrec.__all__)
    assert set(tfrec.__all__) == set(tfrec._PUBLIC)
    for name in tfrec.__all__:
        assert getattr(tfrec, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tfrec.nothing


@pytest.mark.parametrize("name", ["Trainer", "Dataset", "evaluate", "export", "recommend", "train"])
def test_help_has_arguments_and_an_example(name):
    found = getattr(tfrec, name)
    text = (found.from_pandas if name == "Dataset" else found).__doc__
    assert all(f"{head}:\n" in text for head in ("Args", "Raises", "Example"))


def test_a_frame_goes_in_and_a_frame_with_raw_ids_comes_out(split, model, frame):
    found = tfrec.recommend(model, split, user="c3", k=4)
    assert list(found) == ["product", "title", "score", "source"]
    assert len(found) == 4 and (found["score"].diff().dropna() <= 0).all()
    assert set(found["source"]) == {"model"}
    users = np.flatnonzero(split.catalog.user_ids == "c3")
    seen = np.concatenate(
        [split.train.of_users(users).product, split.validation.of_users(users).product]
    )
    assert not set(found["product"]) & set(split.catalog.product_ids[seen])
    both = tfrec.recommend(model, split, user=["c3", "c5"], k=4)
    assert both["user"].tolist() == ["c3"] * 4 + ["c5"] * 4
    pd.testing.assert_frame_equal(both[:4].drop(columns="user"), found)


def test_somebody_new_is_recommended_to_by_what_they_like(split, model):
    found = tfrec.recommend(model, split, history={101: 5.0, 102: 1.0}, k=3)
    assert len(found) == 3 and not {101, 102} & set(found["product"])
    assert set(found["source"]) == {"fold_in"}


def test_frames_are_as_files_of_the_same_rows(frame, tmp_path):
    """The same ids, ratings, times and features."""
    products = pd.DataFrame(
        {
            "sku": range(100, 121),
            "title": [f"P{at}" for at in range(21)],
            "brand": ["x", "y", None] * 7,
            "tags": ["a|b", "b", ""] * 7,
            "price": [1.5, None, 3.0] * 7,
        }
    )
    features = {
        "products_categorical": ("brand",),
        "products_multivalued": ("tags",),
        "products_numeric": ("price",),
    }
    seconds = frame.assign(timestamp=frame["timestamp"].astype("int64") // 10**9)
    if frame["timestamp"].dt.unit != "ns":
        seconds["timestamp"] = frame["timestamp"].astype("datetime64[s]").astype("int64")
    seconds.to_csv(tmp_path / "rows.csv", index=False)
    products.to_csv(tmp_path / "products.csv", index=False)
    one = tfrec.Dataset.from_pandas(frame, products, **NAMES, **features)
    other = tfrec.read(
        tmp_path / "rows.csv", products=str(tmp_path / "products.csv"), **NAMES, **features
    )
    for name, column in one.columns.items():
        np.testing.assert_array_equal(column, other.columns[name])
    np.testing.assert_array_equal(one.catalog.features.dense(), other.catalog.features.dense())
    assert one.catalog.features.names == other.catalog.features.names
    assert one.catalog.products["title"].tolist() == other.catalog.products["title"].tolist()


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"user_column": "custmer"}, r"user_column=custmer: .* Did you mean customer\?"),
        ({"customer": None}, {}, r"interactions, column customer, row 7: None an id is missing\."),
        ({"rating": np.nan}, {}, r"interactions, column rating, row 7: nan is not a number\."),
        ({"rating": "good"}, {}, r"interactions, column rating, row 7: 'good' is not a number\."),
        ({}, {"sepparator": ","}, r"sepparator: there is no such setting here\. .*"),
        ({}, {"products_numeric": ("x",)}, r"products_numeric=x: there is no frame products\."),
        (
            {},
            {"duplicates": "first"},
            r"duplicates=first: expected one of auto, last, mean, max, sum, error\.",
        ),
    ],
)
def test_a_wrong_frame_is_one_line(frame, changes, settings, message):
    frame = frame.copy()
    for name, value in changes.items():
        frame[name] = frame[name].astype(object)
        frame.loc[7, name] = value
    with pytest.raises(tfrec.TfrecError, match=f"^{message}$") as error:
        tfrec.Dataset.from_pandas(frame, **(NAMES | settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, m: tfrec.recommend(m, s), "user or history: one of them is needed."),
        (lambda s, m: tfrec.recommend(m, s, user="c33"), "user='c33': there is no such user"),
        (lambda s, m: tfrec.recommend(m, s, history=[7]), "history=7: there is no such product"),
        (lambda s, m: tfrec.recommend(m, s, user="c3", k=0), "k=0: expected at least 1."),
        (lambda s, m: tfrec.evaluate(m, s, kk=(5,)), "kk: Evaluation has no such setting."),
        (lambda s, m: tfrec.load("latest-smal"), "name=latest-smal: expected one of"),
        (lambda s, m: tfrec.load("files"), "name=files: expected one of"),
        (lambda s, m: tfrec.train(modle="mf"), "modle: there is no such setting."),
    ],
)
def test_a_wrong_argument_is_one_line(split, model, call, message):
    with pytest.raises(tfrec.UsageError) as error:
        call(split, model)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "settings", "message"),
    [
        ("user_tmporal", {}, "split=user_tmporal: expected one of .* Did you mean user_temporal"),
        ("temporal", {"split_seed": 1}, "split_seed: there is no such setting here"),
        ("kfold", {"fold": 7}, "fold=7: with folds=5 the folds are 0 to 4"),
    ],
)
def test_a_wrong_split_is_one_line(frame, how, settings, message):
    data = tfrec.Dataset.from_pandas(frame, **NAMES)
    with pytest.raises(tfrec.UsageError, match=f"^{message}"):
        data.split(how, **settings)


def scorer(score):
    """A model with that score."""

    class Mine(tfrec.Recommender):
        def __init__(self, train, settings):
            super().__init__(name="mine")
            self.users = tfrec.layers.Embedding(train.num_users, 3, side="user")
            self.products = tfrec.layers.Embedding(train.num_products, 3, side="product")
            self.network = tf.keras.Sequential([tf.keras.layers.Dense(1)])

        def score(self, batch, products, training=False):
            return score(self, self.users(batch["user"]), self.products(products))

    return Mine


def over_pairs(model, user, product):
    return tfrec.layers.rowwise(model.network, tfrec.layers.pairs(user, product))[..., 0]


def test_a_network_over_pairs_trains_and_is_served(split):
    made = scorer(over_pairs).from_data(split.train, "ranking")
    tfrec.Trainer(made, batch_size=64).fit(split.train, epochs=1, hooks=[])
    assert len(tfrec.recommend(made, split, user="c3", k=3)) == 3


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda m, u, p: tf.concat([u, p], -1), r"Mine\.score: .*ConcatOp.*rowwise and pairs help"),
        (lambda m, u, p: over_pairs(m, u, p)[..., None], r"Mine\.score: .* returned \[1, 2, 1\], "),
        (lambda m, u, p: m.nothing, r"Mine\.score: .*no attribute 'nothing'"),
    ],
)
def test_a_wrong_score_is_one_line(split, score, message):
    with pytest.raises(tfrec.UsageError, match=f"^{message}") as error:
        scorer(score).from_data(split.train)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, m: type(m).from_data(s), "train=Split: expected training rows, such as"),
        (
            lambda s, m: tfrec.Trainer(m).fit(s),
            "fit: expected rows such as split.train, got a Split",
        ),
        (lambda s, m: tfrec.evaluate(m, s.test), "split: expected the whole split, got a Memory"),
        (lambda s, m: tfrec.Trainer(m, "bpr"), "loss='bpr': expected an instance, such as"),
        (lambda s, m: tfrec.Trainer(m, tfrec.losses.BPR), "loss=<class"),
        (lambda s, m: tfrec.Trainer(m, optimizer="adam"), "optimizer='adam': expected an instance"),
        (lambda s, m: m.save("m.keras"), "save: a model is kept by tfrec.export"),
        (lambda s, m: m.save_weights("m.weights.h5"), "save_weights: the loss scales the scores"),
    ],
)
def test_what_a_newcomer_mistakes_is_one_line(split, model, call, message):
    with pytest.raises(tfrec.UsageError) as error:
        call(split, model)
    assert str(error.value).startswith(message)


def test_weights_without_scaling_are_saved_and_loaded_as_keras_does(split, tmp_path):
    models = [
        tfrec.models.MatrixFactorization.from_data(split.train, "ranking", seed) for seed in (0, 1)
    ]
    models[0].save_weights(tmp_path / "m.weights.h5")
    models[1].load_weights(tmp_path / "m.weights.h5")
    scores = [each.score_all(split.train.example()).numpy() for each in models]
    np.testing.assert_array_equal(*scores)


def test_lists_and_single_values_are_taken_for_tuples(split, model):
    found = [tfrec.evaluate(model, split, k=k, full_ranking=True) for k in (3, [3], (3,))]
    assert found[0] == found[1] == found[2]


def test_data_show_what_they_are(frame, split):
    data = tfrec.Dataset.from_pandas(frame, **NAMES)
    assert repr(data) == "frames: 30 users, 20 products, 400 rows"
    assert repr(split).endswith("288 rows to train, 32 to validate, 80 to test")
    assert repr(split.train) == "frames: 30 users, 20 products, 288 rows"


def test_a_numeric_feature_of_words_is_one_line(frame):
    products = pd.DataFrame({"sku": range(100, 120), "price": ["cheap", *["1"] * 19]})
    with pytest.raises(tfrec.TfrecError, match=r"^products, column price, row 0: 'cheap' is not a"):
        tfrec.Dataset.from_pandas(frame, products, products_numeric="price", **NAMES)


def test_metrics_are_a_table_and_a_dict(split, model):
    found = tfrec.evaluate(model, split, baselines=True, k=(3,), full_ranking=True)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["test", "mf", "baseline", "baseline", "baseline"]
    assert f"{found['rmse']:.4f}" in lines[1] and "ndcg@3" in lines[0]
    assert found.baselines.keys() == {"global_mean", "bias", "popularity"}
    assert not any("@" in name for name in str(tfrec.evaluate(model, split)).split())


def test_a_metric_of_ones_own_sees_what_was_tested(split, model):
    def worst(predictions: tfrec.metrics.Predictions) -> float:
        return np.abs(predictions.scores - predictions.rows.rating).max()

    found = tfrec.evaluate(model, split, metrics=[worst])
    assert found["worst"] >= found["rmse"] and "worst" in str(found).splitlines()[0]


def test_a_model_without_a_trainer_is_served(split, tmp_path):
    """As after a loop of one's own: its scores are in the data's own unit."""
    for task in ("rating", "ranking"):
        made = tfrec.models.MatrixFactorization.from_data(split.train, task=task, embedding_dim=4)
        tfrec.export(made, split, tmp_path / task)
        found = tfrec.recommend(made, split, history={101: 5.0}, k=3)
        assert len(found) == 3 and np.isfinite(found["score"]).all()


def test_implicit_factors_must_be_in_the_tables_before_a_model_is_served(split):
    made = tfrec.models.MatrixFactorization.from_data(split.train, implicit_factors=("user",))
    with pytest.raises(tfrec.UsageError, match=r"^model: .* Call model\.finalize\(\) when"):
        tfrec.recommend(made, split, user="c3")
    made.finalize()
    assert len(tfrec.recommend(made, split, user="c3", k=3)) == 3


def test_the_example_of_a_model_trains(split):
    shown = tfrec.Recommender.__doc__.split("Example:\n")[1]
    lines = [line[12:] for line in shown.splitlines() if line.strip()]
    scope = {"tfrec": tfrec, "tf": tf, "split": split}
    exec("\n".join(lines), scope)
    tfrec.Trainer(scope["model"], batch_size=64).fit(split.train, epochs=1, hooks=[])


def test_an_export_answers_as_recommend_does(split, model, tmp_path):
    tfrec.export(model, split, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model")).signatures["score"]
    assert "rating" in loaded.structured_outputs


def test_a_run_is_one_call_and_can_be_opened_again(tmp_path):
    policy = tf.keras.mixed_precision.global_policy()
    np.random.seed(7)
    random.seed(7)
    before = [random.getstate(), np.random.get_state()[1].tolist()]
    settings = {
        "model": "mf",
        "dataset": "1m",
        "data_dir": str(write_1m(tmp_path / "world")),
        "workdir": str(tmp_path / "run"),
        "epochs": 1,
        "embedding_dim": 4,
        "precision": "mixed_bfloat16",
    }
    run = tfrec.train(**settings)
    assert tf.keras.mixed_precision.global_policy() is policy
    assert [random.getstate(), np.random.get_state()[1].tolist()] == before
    opened = tfrec.Run.open(tmp_path / "run")
    assert opened.metrics == run.metrics and opened.metrics["rmse"] > 0
    found = opened.recommend(user=7, k=3)
    pd.testing.assert_frame_equal(found, run.recommend(user=7, k=3))
    again = tfrec.train(**settings)  # it is finished: the model is the one that was kept
    pd.testing.assert_frame_equal(again.recommend(user=7, k=3), found)
    table = ExportedModel(tmp_path / "run").for_user("7", 3)
    assert all(title in table for title in found["title"])


@pytest.mark.parametrize("name", ["quickstart", "own_loop", "own_parts"])
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    """With one epoch in place of ten, and in this process."""
    monkeypatch.chdir(tmp_path)
    program = (EXAMPLES / f"{name}.py").read_text().replace("epochs=10)", "epochs=1)")
    (tmp_path / f"{name}.py").write_text(program)
    runpy.run_path(str(tmp_path / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "baseline bias" in printed
    assert "WARNING" not in printed


@pytest.mark.parametrize("strategy", ["default", "mirrored"])
def test_a_model_of_ones_own_does_all_that_ours_do(strategy, tmp_path, monkeypatch):
    """It trains, resumes, evaluates, exports, folds in and answers, by the command line."""
    world, workdir = write_1m(tmp_path / "world"), f"--workdir={tmp_path / 'run'}"
    words = [f"--model={EXAMPLES / 'two_tower.py'}:TwoTower", "--hidden=8,4", workdir]
    words += ["--task=ranking", "--loss=in_batch_softmax", "--dataset=1m", f"--data_dir={world}"]
    words += ["--epochs=2", "--batch_size=64", f"--strategy={strategy}"]
    words += ["--virtual_devices=2"] if strategy == "mirrored" else []
    loops = []

    def power_cut(*_):
        loops.append(1)
        if len(loops) == 2:  # in the second epoch
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(tfrec.hooks.ProgressBar, "after_loop", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            script("train", *words)
    assert "going on after epoch 1" in script("train", *words)
    run = tfrec.Run.open(tmp_path / "run")
    assert f"{run.metrics['ndcg@10']:.4f}" in script("evaluate", workdir)
    script("export", workdir, f"--output={tmp_path / 'export'}")
    score = tf.saved_model.load(str(tmp_path / "export")).signatures["score"]
    assert "(fold_in)" in script("recommend", workdir, "--like=film 3 (1963); 9", "--k=3")
    assert "user 7 (model)" in script("recommend", workdir, "--user=7", "--k=3")
    assert run.settings.hidden == (8, 4)
    best = run.recommend(user=7, k=3)
    none = {"context": tf.zeros([0, 2]), "timestamp": tf.zeros([0], tf.int64)}
    pairs = {"user": tf.fill([3], tf.constant(7, tf.int64)), "product": best["product"].to_numpy()}
    np.testing.assert_allclose(score(**pairs, **none)["rating"], best["score"], rtol=1e-5)


def test_a_model_of_ones_own_that_has_changed_is_said(tmp_path, capsys):
    """The run keeps the file that it was trained by."""
    file, world = tmp_path / "own.py", write_1m(tmp_path / "world")
    file.write_text((EXAMPLES / "two_tower.py").read_text())
    settings = {"dataset": "1m", "data_dir": str(world), "epochs": 1, "task": "ranking"}
    tfrec.train(model=f"{file}:TwoTower", workdir=str(tmp_path / "run"), **settings)
    kept = tmp_path / "run" / "parts" / "own.py"
    assert kept.read_text() == file.read_text()
    tfrec.Run.open(tmp_path / "run")
    assert "has changed" not in capsys.readouterr().out
    file.write_text(file.read_text() + "# another line\n")
    tfrec.Run.open(tmp_path / "run")
    assert f"own.py has changed since this run; it was trained by {kept}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Adam", "SGD", "Adagrad"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_a_keras_optimizer_trains_as_ours_does(name, l2):
    """Ours are proven against Keras with dense gradients; here rows repeat, and L2 acts."""
    rows = make_split(make_dataset()).train
    weights = []
    for optimizers in (tfrec.optimizers, tf.keras.optimizers):
        tf.keras.utils.set_random_seed(0)
        made = tfrec.models.MatrixFactorization.from_data(rows, embedding_dim=3)
        optimizer = getattr(optimizers, name)(0.05)
        trainer = tfrec.Trainer(made, optimizer=optimizer, batch_size=16, l2=l2)
        iterator = trainer.iterate(rows)
        trainer.run(iterator, 5)
        weights.append({path: w.numpy() for path, w in made.named_weights().items()})
    for path, weight in weights[0].items():
        np.testing.assert_allclose(weight, weights[1][path], rtol=2e-4, atol=2e-5, err_msg=path)


def test_a_keras_optimizer_is_refused_on_several_devices():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    rows = make_split(make_dataset()).train
    with strategy.scope():
        made = tfrec.models.MatrixFactorization.from_data(rows)
    for scope in (contextlib.nullcontext(), strategy.scope()):
        adam = tf.keras.optimizers.Adam()
        with scope, pytest.raises(tfrec.UsageError, match=r"^optimizer=Adam: .* one device only\."):
            tfrec.Trainer(made, optimizer=adam, strategy=strategy, batch_size=8)


def test_a_row_that_stands_twice_is_merged():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([3, 1, 3]))
    merged, none, dense = tfrec.optimizers.merge_rows([slices, None, tf.ones([2])])
    np.testing.assert_array_equal(merged.indices, [3, 1])
    np.testing.assert_array_equal(merged.values, [[5], [2]])
    assert none is None and dense.shape == [2]


def test_the_readme_shows_the_quickstart_and_a_model_that_trains(tmp_path):
    readme = (ROOT / "README.md").read_text()
    shown = [part.split("```")[0] for part in readme.split("```python\n")[1:]]
    assert (EXAMPLES / "quickstart.py").read_text().split('"""\n\n')[1] == shown[0]
    (tmp_path / "mine.py").write_text(f"import tfrec\n\n{shown[1]}")
    mine = runpy.run_path(str(tmp_path / "mine.py"))["Mine"]
    rows = make_dataset().interactions
    made = mine.from_data(rows, "ranking")
    tfrec.Trainer(made, batch_size=16).fit(rows, epochs=1, hooks=[])
    quiet = 100 + int(rows.counts("user").argmin())
    assert tfrec.recommend(made, make_split(make_dataset()), user=quiet, k=2).shape == (2, 4)


EVENTS = pd.DataFrame(
    {
        "user": [1, 1, 2, 2],
        "product": ["a", "b", "a", "c"],
        "type": ["view", "buy", "buy", "view"],
        "timestamp": ["2025-01-02T01:34:17Z", "2025-01-03", "2025-01-02T00:00:00Z", "2025-02-01"],
    }
)


@pytest.mark.parametrize(
    "weights", ({"view": 1, "buy": 10}, "view:1,buy:10", ["view:1", "buy:10"], ("view:1", "buy:10"))
)
def test_events_and_times_of_a_frame_are_taken_as_a_file_has_them(weights, tmp_path):
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    settings = {"event_column": "type", "event_weights": weights}
    dates = pd.to_datetime(EVENTS["timestamp"], utc=True, format="ISO8601")
    found = [
        tfrec.Dataset.from_pandas(EVENTS, **settings),
        tfrec.Dataset.from_pandas(EVENTS.assign(timestamp=dates), **settings),
        tfrec.read(tmp_path / "events.csv", **settings),
    ]
    for each in found:
        assert each.interactions.weight.tolist() == [1, 10, 10, 1]
        np.testing.assert_array_equal(each.interactions.timestamp, found[0].interactions.timestamp)
    assert found[0].interactions.timestamp[0] == 1735781657


@pytest.mark.parametrize("unit", (1, 10**3, 10**6, 10**9))
def test_times_of_a_frame_are_told_apart_by_their_size(unit):
    seconds = np.array([1735781657, 1735781658, 1735781659, 1735781660])
    frame = EVENTS.drop(columns="type").assign(timestamp=seconds * unit)
    found = tfrec.Dataset.from_pandas(frame)
    np.testing.assert_array_equal(found.interactions.timestamp, seconds)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tfrec.Dataset.from_pandas("events.csv"), "interactions=str: expected a DataFrame"),
        (
            lambda: tfrec.Dataset.from_pandas(EVENTS, products="a.csv"),
            "products=str: expected a",
        ),
        (lambda: tfrec.read(EVENTS), "interactions: expected a file. tfrec.Dataset.from_pandas"),
        (lambda: tfrec.read("e.csv", products=EVENTS), "products: expected a file"),
        (
            lambda: tfrec.Dataset.from_pandas(
                EVENTS, event_column="type", event_weights="veiw:1,Buy:2"
            ),
            r"none of its events \(buy, view\) is among event_weights. Did you mean view\?",
        ),
        (lambda: tfrec.Dataset.from_pandas(EVENTS, numeric_bins=3), "numeric_bins=3: there are no"),
        (
            lambda: tfrec.Dataset.from_pandas(EVENTS.assign(timestamp="yesterday")),
            "'yesterday' is not a time in ISO 8601",
        ),
    ],
)
def test_what_a_newcomer_gets_wrong_is_told_in_one_line(call, message):
    with pytest.raises((tfrec.TfrecError, tfrec.UsageError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
