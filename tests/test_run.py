"""What the run as a whole promises, beyond what the conformance suite asks of each model."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, make_split, replace, some_config
from tests.data import own
from tests.worlds import write_1m
from tfrec.errors import UsageError
from tfrec.experiments import loading, parts, run
from tfrec.experiments.config import make_config
from tfrec.training.state import finalize


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def train(world, workdir, **changes):
    small = {"model": "mf", "embedding_dim": 4, "batch_size": 128, "epochs": 2}
    return run.train(
        some_config(dataset="1m", data_dir=world, workdir=str(workdir), **(small | changes))
    ).record


def test_baselines_do_not_depend_on_the_models_scaling(world, tmp_path):
    results = [
        train(world, tmp_path / how, target_scaling=how) for how in ("none", "product_minmax")
    ]
    assert results[0]["baselines"] == results[1]["baselines"]
    assert results[0]["baselines"].keys() == {"global_mean", "bias"}
    assert results[0]["test"] != results[1]["test"]


def test_a_ranking_run_ranks_its_baselines(world, tmp_path):
    result = train(world, tmp_path, task="ranking")
    assert result["baselines"].keys() == {"bias", "popularity"}
    assert all(
        "ndcg@10" in metrics and "rmse" not in metrics for metrics in result["baselines"].values()
    )


def test_rows_that_validate_are_ranked_among_negatives_as_test_rows_are(world, tmp_path):
    """They learn how many there are, and early stopping does not see the rows of the file."""
    split, _ = loading.load(make_config(dataset="1m", data_dir=world, task="ranking"))
    lines = []
    user_ids, product_ids = split.catalog.user_ids, split.catalog.product_ids
    tested = split.test.take(np.arange(40))
    for user, product in zip(user_ids[tested.user], product_ids[tested.product]):
        lines.append(
            "\t".join(
                [
                    f"({user},{product})",
                    *(str(other) for other in product_ids[:20] if other != product),
                ][:16]
            )
        )
    results = []
    for name, kept in (("a", lines[:20]), ("b", lines[20:])):
        path = tmp_path / f"{name}.negative"
        path.write_text("\n".join(kept))
        results.append(train(world, tmp_path / name, task="ranking", candidates_file=str(path)))
    whole = train(world, tmp_path / "c", task="ranking")
    first, other = results
    assert first["validation"] == other["validation"] != whole["validation"]
    assert first["history"] == other["history"]
    assert first["validation"]["hr@20"] == 1  # there are 16 candidates
    assert whole["validation"]["hr@20"] < 1


def test_a_model_that_refuses_the_data_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="demographic"):
        run.train(make_config(model="demographic", workdir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_term_without_data_is_refused_and_one_without_products_still_ranks(world, tmp_path):
    result = train(world, tmp_path, model="hybrid", terms=("context",), task="ranking")
    assert result["test"]["auc"] == 0.5  # the context does not tell products apart: all tie


def test_a_run_that_stopped_before_its_test_rows_is_finished_by_train(world, tmp_path):
    figures = run.validate(
        make_config(
            dataset="1m",
            data_dir=world,
            workdir=str(tmp_path),
            model="mf",
            epochs=2,
            batch_size=128,
            refit="none",
        )
    )
    assert {path.name for path in tmp_path.iterdir()} == {"config.flags", "checkpoints", "logs"}
    finished = train(world, tmp_path, embedding_dim=50)
    assert figures["validation"]["rmse"] == pytest.approx(finished["validation"]["rmse"], rel=1e-6)
    assert finished["train"] == figures["train"]
    assert "rmse" in finished["test"]


@pytest.mark.parametrize("command", [run.train, run.validate])
@pytest.mark.parametrize(
    "threshold, why",
    [
        (5.5, "none is rated 5.5 or more"),
        (None, "all are products that the users had in training already"),
    ],
)
def test_validation_rows_of_which_none_is_relevant_are_told_before_training(
    world, tmp_path, command, threshold, why
):
    config = make_config(
        dataset="1m",
        data_dir=str(world),
        task="ranking",
        model="mf",
        relevance_threshold=threshold,
        workdir=str(tmp_path / "run"),
        **({} if threshold else files(world, tmp_path)),
    )
    with pytest.raises(UsageError, match=f"no validation row is relevant: {why}"):
        command(config)
    assert not (tmp_path / "run").exists()


def test_a_table_without_ranking_figures_says_why(world, tmp_path, capsys):
    train(world, tmp_path / "run", task="ranking", model="ease", relevance_threshold=5.5)
    assert (
        "no ranking metrics, as no test row is relevant: none is rated 5.5 or more"
        in capsys.readouterr().out
    )


def files(world, folder) -> dict[str, str]:
    """The same rows to validate as to train."""
    lines = (Path(world) / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "train.dat").write_text("".join(lines[:300]))
    (folder / "again.dat").write_text("".join(lines[100:200]))
    (folder / "test.dat").write_text("".join(lines[300:400]))
    named = {"train_file": "train.dat", "validation_file": "again.dat", "test_file": "test.dat"}
    return {"split": "files"} | {name: str(folder / file) for name, file in named.items()}


@pytest.mark.parametrize(
    "validation",
    ([], [3, 8], [3, 4, 8, 9], [4, 9]),
    ids=("none", "of trained", "half and half", "of new"),
)
def test_new_products_stand_for_the_catalogue_or_for_what_is_asked_for(validation):
    """In a row that is tested, a product comes as often as it is rated.

    Validation rows say how many of those rows are of new products.
    """
    own = np.int32([0, 0, 0, 1, 2, 0, 0, 1, 1, 3])
    dataset = replace(make_dataset(num_products=4, rows=10), product=own)
    trained = np.array([0, 1, 2, 5, 6, 7])  # products 0 (5 rows) and 1 (1 row)
    split = make_split(dataset, train=trained, validation=np.array(validation, np.int64))
    config = make_config(model="hybrid", task="ranking", embedding_dim=2)
    model = parts.make_model(split.train, config)
    table = model.embeddings("product")["products"].table
    before = tf.random.normal(table.shape).numpy()
    table.assign(before)
    finalize(model, split, "mean")
    new = np.mean([row in (4, 9) for row in validation]) if validation else 0
    expected = (1 - new) * before[:2].mean(axis=0) + new * (5 * before[0] + before[1]) / 6
    np.testing.assert_array_equal(table.numpy()[:2], before[:2])
    np.testing.assert_allclose(table.numpy()[2:], [expected] * 2, rtol=1e-4, atol=1e-6)
    users = split.cold_weights("user")
    assert users.sum() == pytest.approx(1) and np.array_equal(
        users > 0, np.isin(np.arange(12), split.train.user)
    )


@pytest.mark.parametrize(("model", "said"), [("popularity", True), ("hybrid", False)])
def test_a_line_says_that_a_model_reads_no_features(model, said, tmp_path):
    settings = {"products": str(tmp_path / "products.csv"), "products_categorical": ("brand",)}
    config = own.config(own.write(tmp_path), model=model, workdir=str(tmp_path / "run"), **settings)
    headline = run.Run.begin(config)._headline()
    assert (f"note: --model={model} reads no features of products" in headline) == said
    assert "3 users, 4 products, 5 ratings\n" in headline
