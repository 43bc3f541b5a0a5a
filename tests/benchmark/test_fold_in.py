"""What must hold of new users, on the built-in data.

Close to being in training, and well above popularity.
"""

from benchmarks import fold_in


def test_a_stranger_is_served_almost_like_a_user(tmp_path):
    head, line = fold_in.study(tmp_path, ["user_knn"]).splitlines()
    assert head.split() == ["NDCG@10", "fold-in", "trained", "with", "popularity"]
    folded, trained, popular = map(float, line.split()[1:])
    assert folded > 0.9 * trained and folded > 1.2 * popular
