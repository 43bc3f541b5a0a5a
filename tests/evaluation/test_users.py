import numpy as np
import pytest

from tests.conftest import make_dataset, make_split
from tests.evaluation.test_evaluate import FITTED, make_model
from tfrec.errors import TfrecError
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.experiments import per_user

TESTED, TRAIN, VALIDATION = np.arange(0, 20), FITTED[:-7], FITTED[-7:]


def figures(dataset, train=TRAIN, validation=VALIDATION, name="mf", k=(2, 5)):
    model, task = make_model(name, dataset)
    split = make_split(dataset, train, validation, TESTED)
    evaluator = Evaluator(model, split, EvaluationSettings(k=k, full_ranking=True), task=task)
    predictions = evaluator.predictions()
    return per_user.metrics(predictions, evaluator), evaluator.metrics(predictions)


def test_the_users_make_up_the_metrics(dataset):
    arrays, metrics = figures(dataset)
    tested = arrays["tested"].sum()
    assert tested == len(TESTED)
    assert np.sqrt(arrays["squared_error"].sum() / tested) == pytest.approx(metrics["rmse"])
    assert arrays["absolute_error"].sum() / tested == pytest.approx(metrics["mae"])
    for name in ("hr@2", "ndcg@5", "recall@2", "map@5", "mrr@5", "precision@2", "auc"):
        assert np.nanmean(arrays[name]) == pytest.approx(metrics[name], abs=1e-6)
    ids = dataset.catalog.user_ids
    for user, count, error in zip(arrays["rated_user"], arrays["tested"], arrays["squared_error"]):
        own = [row for row in TESTED if ids[dataset.interactions.user[row]] == user]
        assert count == len(own) and error >= 0
    assert set(arrays["ranked_user"]) == set(ids[dataset.interactions.user[TESTED]])


def test_a_ranking_run_has_no_errors(dataset):
    arrays, _ = figures(dataset, name="seasonal", k=(2,))
    assert "tested" not in arrays and "ndcg@2" in arrays


def test_the_checksum_tells_rows_apart_and_not_how_the_seen_ones_are_cut(dataset):
    same = figures(dataset, FITTED, FITTED[:0])[0]["rows"]
    assert same == figures(dataset)[0]["rows"]
    assert same != figures(dataset, FITTED[1:], FITTED[:0])[0]["rows"]
    assert same != figures(make_dataset(seed=1))[0]["rows"]


def test_what_is_saved_is_read_back_text_ids_too(tmp_path, dataset):
    arrays = figures(dataset)[0] | {
        "rated_user": np.array(["anna", "bertram", "b", "ü" * 3000], object)
    }
    per_user.save(tmp_path, arrays)
    found = per_user.read(tmp_path)
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["users.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "the run has no users.npz"), (b"PK\3\4 half", "the file is damaged")],
)
def test_without_the_file_the_error_says_how_to_mend(tmp_path, content, message):
    if content:
        (tmp_path / "users.npz").write_bytes(content)
    with pytest.raises(
        TfrecError, match=rf"{message}.*Run python scripts/evaluate\.py --workdir={tmp_path}"
    ):
        per_user.read(tmp_path)
