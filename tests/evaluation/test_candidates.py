import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, replace, with_output
from tfrec.data import targets
from tfrec.errors import TfrecError, UsageError
from tfrec.evaluation import evaluate, ranking
from tfrec.evaluation.candidates import draw_candidates, read_candidates
from tfrec.evaluation.evaluate import Evaluator
from tfrec.experiments.config import make_config
from tfrec.models.hybrid import Hybrid
from tfrec.models.mf import MatrixFactorization

USERS = np.array([0, 3, 3, 11])
PRODUCTS = np.array([[2, 0, 1, 8], [5, 3, 4, 7], [6, 3, 4, 7], [0, 8, 7, 6]])


def write(path, dataset, users=USERS, products=PRODUCTS):
    """NCF's *.test.negative."""
    lines, of_user, of_product = [], dataset.catalog.user_ids, dataset.catalog.product_ids
    for user, (item, *negatives) in zip(users, products):
        ids = [str(of_product[product]) for product in negatives]
        lines.append("\t".join([f"({of_user[user]},{of_product[item]})", *ids]))
    path.write_text("\n".join(lines) + "\n")
    return path


def text_ids(dataset):
    """The same data with ids that are text."""
    ids = {
        name: np.array([f"x-{i}" for i in getattr(dataset.catalog, name)], object)
        for name in ("user_ids", "product_ids")
    }
    return replace(dataset, **ids)


@pytest.mark.parametrize("prepare", (lambda dataset: dataset, text_ids))
def test_ids_become_indices(tmp_path, dataset, prepare):
    data = prepare(dataset)
    users, products = read_candidates(write(tmp_path / "negatives", data), data.catalog)
    assert (users.dtype, products.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(users, USERS)
    np.testing.assert_array_equal(products, PRODUCTS)


def test_blank_lines_and_spaces_do_no_harm(tmp_path, dataset):
    path = tmp_path / "negatives"
    path.write_text("(100,1002)\t1000\r\n\n (103, 1005)\t1003 \n\n")
    users, products = read_candidates(path, dataset.catalog)
    assert (users.tolist(), products.tolist()) == ([0, 3], [[2, 0], [5, 3]])


@pytest.mark.parametrize("block", (1, 3, 4096))
@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_each_line_is_ranked_among_its_candidates(tmp_path, task, block, monkeypatch):
    monkeypatch.setattr(evaluate, "USERS_AT_ONCE", block)
    data = make_dataset()
    split = make_split(data, np.arange(20, 60), test=np.arange(20))
    model = MatrixFactorization.from_data(data.interactions, embedding_dim=4)
    for weight in model.weights:
        weight.assign(np.random.RandomState(0).normal(size=weight.shape))
    config = make_config(
        k=(1, 2), candidates_file=str(write(tmp_path / "negatives", data))
    ).evaluation
    scaling = targets.fit("product_minmax", split.train.stats)
    if task == "rating":
        with_output(model, split.train, "product_minmax")
    evaluator = Evaluator(model, split, config, task=task)
    scores = model.score_all({"user": USERS}).numpy()
    if task == "rating":
        scores = scaling.to_ratings(scores, np.arange(data.catalog.num_products))
    expected = [
        1 + sum(scores[line, other] > scores[line, item] for other in others)
        for line, (item, *others) in enumerate(PRODUCTS)
    ]
    assert evaluator.candidate_ranking().ranks.rank.tolist() == expected
    assert evaluator.candidate_ranking().ranks.candidates.tolist() == [4] * 4
    assert evaluator.candidate_ranking().pairs.tolist() == [
        [user, item] for user, (item, *_) in zip(USERS, PRODUCTS)
    ]
    assert "coverage@2" not in evaluator.metrics()  # no lists among candidates
    result = evaluator.ranking_metrics()
    assert result == ranking.metrics(
        ranking.Ranks(np.arange(4), np.array(expected), np.full(4, 4)), (1, 2)
    )
    assert result["hr@2"] == np.mean(np.array(expected) <= 2)  # a user of two lines counts twice


@pytest.mark.parametrize("context", ("true", "static"))
def test_each_line_is_ranked_in_the_context_of_its_row(tmp_path, context):
    data, tested = make_dataset(), np.arange(1, 20)
    data = replace(data, context=np.eye(2, dtype=np.float32)[np.arange(60) % 2])
    tf.keras.utils.set_random_seed(0)
    terms = ("dot", "context_factors")
    model = Hybrid.from_data(data.interactions, "ranking", embedding_dim=4, terms=terms)
    for weight in model.trainable_weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [3, len(weight.path)]))
    pairs = [
        (data.interactions.user[row], data.interactions.product[row]) for row in [0, *tested]
    ]  # the first is no tested row
    lines = [
        [item, *(p for p in range(data.catalog.num_products) if p != item)] for _, item in pairs
    ]
    ids = [
        (data.catalog.user_ids[user], data.catalog.product_ids[line])
        for (user, _), line in zip(pairs, lines)
    ]
    path = tmp_path / "negatives"
    path.write_text(
        "".join(
            "\t".join([f"({user},{item})", *map(str, others)]) + "\n"
            for user, (item, *others) in ids
        )
    )
    config = make_config(candidates_file=str(path), evaluation_context=context).evaluation
    split = make_split(data, np.arange(20, 60), test=tested)
    found = Evaluator(model, split, config).candidate_ranking().ranks.rank

    def expected(contexts):
        batch = {"user": tf.constant([user for user, _ in pairs]), "context": tf.constant(contexts)}
        scores = model.score_all(batch).numpy()
        return [1 + sum(mine > mine[item]) for mine, (_, item) in zip(scores, pairs)]

    static = np.zeros((20, 2), np.float32)
    own = np.concatenate([static[:1], data.interactions.context[tested]])
    assert expected(own) != expected(static)
    assert found.tolist() == expected(own if context == "true" else static)


MALFORMED = {
    "empty": ("", "negatives: the file is empty"),
    "blank": ("\n\n", "negatives: the file is empty"),
    "no parentheses": (
        "(100,1002)\t1000\n100,1002\t1000",
        "negatives, row 2: expected (user,item)",
    ),
    "no item": ("(100)\t1000", "negatives, row 1: expected (user,item)"),
    "no negatives": ("(100,1002)", "negatives, row 1: expected (user,item)"),
    "spaces for tabs": ("(100,1002) 1000", "negatives, row 1: expected (user,item)"),
    "ragged": (
        "(100,1002)\t1000\t1001\n(100,1002)\t1000",
        "negatives, row 2: 1 negatives where row 1 has 2",
    ),
    "unknown user": ("(100,1002)\t1000\n(999,1002)\t1000", "negatives, row 2: unknown user 999"),
    "unknown item": ("(100,1002)\t1000\n(100,777)\t1000", "negatives, row 2: unknown product 777"),
    "unknown negative": (
        "(100,1002)\t1000\t1001\n(100,1002)\t1000\t555",
        "negatives, row 2: unknown product 555",
    ),
    "first of several": (
        "(100,1002)\t666\n(999,1002)\t1000",
        "negatives, row 1: unknown product 666",
    ),
    "after a blank line": (
        "(100,1002)\t1000\n\n(999,1002)\t1000",
        "negatives, row 3: unknown user 999",
    ),
    "malformed after a blank line": (
        "\n(100,1002)\t1000\n\n100\t1000",
        "negatives, row 4: expected (user,item)",
    ),
    "ragged after a blank line": (
        "\n(100,1002)\t1000\n\n(100,1002)\t1000\t1001",
        "negatives, row 4: 2 negatives where row 2 has 1",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_ends_in_one_line_with_file_and_row(tmp_path, dataset, name):
    text, message = MALFORMED[name]
    path = tmp_path / "negatives"
    path.write_text(text)
    with pytest.raises(TfrecError) as error:
        read_candidates(path, dataset.catalog)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text(tmp_path, dataset):
    with pytest.raises(TfrecError, match=r"^candidates_file=.*nowhere: there is no such file\.$"):
        read_candidates(tmp_path / "nowhere", dataset.catalog)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TfrecError, match=r"binary: the file is not text\.$"):
        read_candidates(tmp_path / "binary", dataset.catalog)


@given(
    pairs=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 11)), min_size=1),
    count=st.integers(1, 15),
)
def test_drawn_negatives_are_products_that_the_user_has_not_taken(pairs, count):
    user, product = np.array(sorted(pairs), np.int32).T
    data = make_dataset()
    rows = data.interactions.take(np.zeros(len(pairs), int))
    rows.user, rows.product = user, product
    taken = user.astype(np.int64) * 12 + product
    ranked = 12 - np.bincount(user)[user] >= count
    if not ranked.any():
        with pytest.raises(UsageError, match=r"^candidates_file: of rows to validate no user has"):
            draw_candidates(rows, taken, 12, count)
        return
    users, products = draw_candidates(rows, taken, 12, count)
    assert products.shape == (np.count_nonzero(ranked), 1 + count)
    assert products.dtype == np.int32
    np.testing.assert_array_equal(users, user[ranked])
    np.testing.assert_array_equal(products[:, 0], product[ranked])
    for who, (_, *negatives) in zip(users, products):
        assert len(set(negatives)) == len(negatives)
        assert not {(who, negative) for negative in negatives} & pairs
    again = draw_candidates(rows, taken, 12, count)[1]
    np.testing.assert_array_equal(products, again)
