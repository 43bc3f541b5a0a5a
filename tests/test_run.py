"""What the run as a whole promises, beyond what the conformance suite asks of each model."""

from pathlib import Path

import pytest

from tests.worlds import write_1m
from tfrec import loading, run
from tfrec.config import make_config
from tfrec.errors import UsageError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def train(world, workdir, **changes):
    small = {"model": "mf", "embedding_dim": 4, "batch_size": 128, "epochs": 2}
    return run.train(make_config(dataset="1m", data_dir=world, workdir=str(workdir), **(small | changes)))


def test_baselines_do_not_depend_on_the_models_scaling(world, tmp_path):
    results = [train(world, tmp_path / how, target_scaling=how) for how in ("none", "product_minmax", "global_minmax")]
    assert results[0]["baselines"] == results[1]["baselines"] == results[2]["baselines"]
    assert results[0]["baselines"].keys() == {"global_mean", "bias", "popularity"}
    assert results[0]["test"] != results[1]["test"]


def test_a_ranking_run_ranks_its_baselines(world, tmp_path):
    result = train(world, tmp_path, task="ranking")
    assert result["baselines"].keys() == {"bias", "popularity"}
    assert all("ndcg@10" in metrics and "rmse" not in metrics for metrics in result["baselines"].values())


def test_the_candidates_file_has_no_say_in_validation(world, tmp_path):
    """It holds test rows: early stopping must not see them."""
    dataset, rows, _ = loading.load(make_config(dataset="1m", data_dir=world, task="ranking"))
    lines = []
    for row in rows.test[:40]:
        user, product = dataset.user_ids[dataset.user[row]], dataset.product_ids[dataset.product[row]]
        lines.append("\t".join([f"({user},{product})", *(str(other) for other in dataset.product_ids[:20] if other != product)][:16]))
    (tmp_path / "candidates").write_text("\n".join(lines))
    with_file = train(world, tmp_path / "a", task="ranking", candidates_file=str(tmp_path / "candidates"))
    without = train(world, tmp_path / "b", task="ranking")
    assert with_file["validation"] == without["validation"]
    assert with_file["test"] != without["test"]


def test_a_model_that_refuses_the_data_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="knowledge"):
        run.train(make_config(model="knowledge", workdir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_term_without_data_is_refused_and_one_without_products_still_ranks(world, tmp_path):
    result = train(world, tmp_path, model="hybrid", terms=("context",), task="ranking")
    assert result["test"]["auc"] == 0.5  # the context does not tell products apart: all tie


def test_a_run_that_stopped_before_its_test_rows_is_finished_by_train(world, tmp_path):
    figures = run.validate(make_config(dataset="1m", data_dir=world, workdir=str(tmp_path), model="mf", epochs=2, batch_size=128))
    assert {path.name for path in tmp_path.iterdir()} == {"config.flags", "checkpoints", "logs"}
    finished = train(world, tmp_path, embedding_dim=50)
    assert figures["validation"]["rmse"] == pytest.approx(finished["validation"]["rmse"], rel=1e-6)
    assert finished["train"] == figures["train"]
    assert "rmse" in finished["test"]


@pytest.mark.parametrize("command", [run.train, run.validate])
@pytest.mark.parametrize(
    "threshold, why", [(5.5, "none is rated 5.5 or more"), (None, "all are products that the users had in training already")]
)
def test_validation_rows_of_which_none_is_relevant_are_told_before_training(world, tmp_path, command, threshold, why):
    config = make_config(
        dataset="1m", data_dir=str(world), task="ranking", model="mf", relevance_threshold=threshold, workdir=str(tmp_path / "run"),
        **({} if threshold else files(world, tmp_path)),
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"no validation row is relevant: {why}"):
        command(config)
    assert not (tmp_path / "run").exists()


def test_a_table_without_ranking_figures_says_why(world, tmp_path, capsys):
    train(world, tmp_path / "run", task="ranking", model="ease", relevance_threshold=5.5)
    assert "no ranking metrics, as no test row is relevant: none is rated 5.5 or more" in capsys.readouterr().out


def files(world, folder) -> dict[str, str]:
    """The same rows to validate as to train."""
    lines = (Path(world) / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "train.dat").write_text("".join(lines[:300]))
    (folder / "again.dat").write_text("".join(lines[100:200]))
    (folder / "test.dat").write_text("".join(lines[300:400]))
    named = {"train_file": "train.dat", "validation_file": "again.dat", "test_file": "test.dat"}
    return {"split": "files"} | {name: str(folder / file) for name, file in named.items()}
