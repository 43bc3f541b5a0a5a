import numpy as np
import pytest

from tests.conftest import make_split, replace
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


def test_the_rows_and_the_users_make_up_the_metrics(dataset):
    arrays, metrics = figures(dataset)
    error = arrays["row_error"]
    assert len(error) == len(TESTED) == len(np.unique(arrays["row_key"]))
    assert np.sqrt(np.mean(error**2)) == pytest.approx(metrics["rmse"])
    assert np.mean(np.abs(error)) == pytest.approx(metrics["mae"])
    for name in ("hr@2", "ndcg@5", "recall@2", "map@5", "mrr@5", "precision@2", "auc"):
        assert np.nanmean(arrays[name]) == pytest.approx(metrics[name], abs=1e-6)
    users = dataset.interactions.user[TESTED]
    same = users[:, None] == users
    np.testing.assert_array_equal(arrays["row_user"][:, None] == arrays["row_user"], same)


def test_a_ranking_run_has_no_errors(dataset):
    arrays, _ = figures(dataset, name="seasonal", k=(2,))
    assert "row_error" not in arrays and "ndcg@2" in arrays


def test_a_row_has_the_same_key_whatever_the_ids_are_numbered_as(dataset):
    """Another data set that has these rows, and more, numbers its users and products otherwise."""
    catalog, rows = dataset.catalog, dataset.interactions
    users, products = (
        np.random.RandomState(1).permutation(count)
        for count in (catalog.num_users, catalog.num_products)
    )
    other = replace(
        dataset,
        user_ids=catalog.user_ids[np.argsort(users)],
        product_ids=catalog.product_ids[np.argsort(products)],
        user=users[rows.user].astype(rows.user.dtype),
        product=products[rows.product].astype(rows.product.dtype),
    )
    one, two = figures(dataset)[0], figures(other)[0]
    np.testing.assert_array_equal(one["row_key"], two["row_key"])
    np.testing.assert_array_equal(one["row_user"], two["row_user"])
    np.testing.assert_array_equal(np.sort(one["ranked_key"]), np.sort(two["ranked_key"]))


def test_rows_of_a_pair_are_told_apart_by_their_time(dataset):
    later = replace(dataset, timestamp=dataset.interactions.timestamp + 1)
    one, two = figures(dataset)[0], figures(later)[0]
    assert not np.intersect1d(one["row_key"], two["row_key"]).size
    np.testing.assert_array_equal(one["row_user"], two["row_user"])


def test_a_user_who_has_other_products_masked_is_not_ranked_alike(dataset):
    keys = figures(dataset)[0]["ranked_key"]
    whole = figures(dataset, FITTED, FITTED[:0])[0]["ranked_key"]
    np.testing.assert_array_equal(keys, whole)  # validation rows are masked, too
    less = figures(dataset, FITTED[1:], FITTED[:0])[0]["ranked_key"]
    assert np.count_nonzero(keys != less) == 1


def test_what_stands_several_times_has_several_keys():
    keys = per_user._distinct(np.array([5, 3, 5, 9, 5], np.uint64))
    assert keys.tolist() == [5, 3, 6, 9, 7]
    assert not len(per_user._distinct(np.zeros(0, np.uint64)))


def test_what_is_saved_is_read_back(tmp_path, dataset):
    arrays = figures(dataset)[0]
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
