import json

import numpy as np
import pytest

from tests.conftest import some_config
from tfrec.errors import UsageError
from tfrec.experiments import comparison, per_user

USERS = 40


def write_run(folder, worse=0.0, seed=0, rows=7, task="rating", **settings):
    """A finished run whose users' figures are noise that all runs share, and a bit more for its
    seed.
    """
    shared, own = np.random.RandomState(0), np.random.RandomState(seed + 1)
    tested = shared.randint(1, 9, USERS)
    errors = np.sqrt(shared.rand(USERS)) + worse + 0.01 * own.rand(USERS)
    ndcg = (shared.rand(USERS) - worse + 0.01 * own.rand(USERS)).astype(np.float32)
    arrays = {
        "ranked_key": np.arange(USERS, dtype=np.uint64) + np.uint64(rows),
        "ndcg@10": ndcg,
        "ndcg@5": ndcg / 2,
    }
    test = {"ndcg@10": float(ndcg.mean()), "ndcg@5": float(ndcg.mean() / 2), "coverage@10": 0.5}
    if task == "rating":
        row_user = np.repeat(np.arange(USERS, dtype=np.uint64), tested)
        arrays |= {
            "row_key": np.arange(len(row_user), dtype=np.uint64) + np.uint64(1000 * rows),
            "row_user": row_user,
            "row_error": errors[row_user],
        }
        test |= {
            "rmse": float(np.sqrt((tested * errors**2).sum() / tested.sum())),
            "mae": float((tested * errors).sum() / tested.sum()),
        }
    folder.mkdir()
    rating = task == "rating"
    of_task = {"loss": "mse", "full_ranking": True} if rating else {"loss": "sigmoid"}
    (folder / "config.flags").write_text(
        some_config(**of_task | {"l2": 0.6, "task": task, "seed": seed} | settings).flagfile()
    )
    (folder / "metrics.json").write_text(json.dumps({"test": test}))
    per_user.save(folder, arrays)
    return folder


def table(folders, metrics=()):
    """(lines of the metrics, lines of the differences), as lists of words."""
    parts = comparison.compare(folders, list(metrics), 2_000, 0).split("\n\n")
    tables = [part for part in parts if part.startswith(("test", "difference"))]
    return [[line.split() for line in part.splitlines()] for part in tables]


def test_seeds_of_a_setting_are_one_row(tmp_path):
    folders = [
        write_run(tmp_path / f"{model}-{seed}", model=model, seed=seed)
        for model in ("mf", "ncf")
        for seed in (0, 1)
    ]
    metrics, differences = table(folders, ["rmse"])
    figures = [
        json.loads((folder / "metrics.json").read_text())["test"]["rmse"] for folder in folders[:2]
    ]
    assert metrics[0] == ["test", "seeds", "rmse"]
    assert metrics[1] == [
        str(folders[0]),
        "0,1",
        f"{np.mean(figures):.4f}",
        "±",
        f"{np.std(figures, ddof=1):.4f}",
    ]
    assert [line[0] for line in metrics[1:]] == [str(folders[0]), str(folders[2])]
    assert differences[1] == [
        str(folders[2]),
        "rmse",
        "40",
        "+0.0000",
        "+0.0000",
        "+0.0000",
        "1.0000",
    ]  # of the same figures


def test_what_is_worse_for_every_user_is_told_from_chance(tmp_path):
    metrics, differences = table(
        [write_run(tmp_path / "a"), write_run(tmp_path / "b", worse=0.1, model="mf", seed=5)]
    )
    assert metrics[0] == ["test", "seeds", "rmse", "mae", "ndcg@10"]
    by_metric = {line[-6]: line for line in differences[1:4]}
    for metric, sign in (("rmse", 1), ("mae", 1), ("ndcg@10", -1)):
        value, low, high, p = map(float, by_metric[metric][-4:])
        assert 0.05 < sign * value < 0.15 and min(low, high) < value < max(low, high) and p < 0.01
    assert by_metric["rmse"][-3] != by_metric["mae"][-3]


def test_the_mean_over_seeds_is_what_is_drawn(tmp_path):
    """One draw of nobody but user u, checked by hand.

    The mean over seeds of the ratio, the root taken run by run.
    """
    read = [comparison._read(write_run(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    runs = comparison._aligned(read)
    drawn = comparison._drawn([runs], ["rmse", "mae", "ndcg@10"], 500, 3)
    random = np.random.default_rng(3).multinomial(USERS, np.full(USERS, 1 / USERS), 500)
    for number, weights in enumerate(random[:5]):
        pooled = [
            np.sqrt(weights @ run.arrays["squared_error"] / (weights @ run.arrays["tested"]))
            for run in runs
        ]
        assert drawn[0, "rmse"][number] == pytest.approx(np.mean(pooled))
        assert drawn[0, "ndcg@10"][number] == pytest.approx(
            np.mean([weights @ run.arrays["ndcg@10"] / USERS for run in runs])
        )


def test_a_run_beside_itself_and_a_seed_that_comes_twice_opens_a_row(tmp_path):
    run = write_run(tmp_path / "a")
    metrics, differences = table([run, run])
    assert len(metrics) == 3
    assert all(
        line[-4:] == ["+0.0000", "+0.0000", "+0.0000", "1.0000"] for line in differences[1:4]
    )


def test_one_setting_is_a_table_without_differences(tmp_path):
    assert len(table([write_run(tmp_path / str(seed), seed=seed) for seed in range(3)])) == 1


def test_a_ranking_run_beside_a_rating_run_has_a_dash(tmp_path):
    metrics, differences = table(
        [write_run(tmp_path / "a"), write_run(tmp_path / "b", task="ranking")]
    )
    assert metrics[2][2:4] == ["-", "-"]
    assert [line[-6] for line in differences[1:-1]] == ["ndcg@10"]


def test_the_auc_is_of_those_who_have_one(tmp_path):
    """Who has no product to beat is not drawn.

    Where that is everybody, runs are compared by the rest.
    """
    folders = [
        write_run(tmp_path / name, model=model) for name, model in (("a", "mf"), ("b", "ncf"))
    ]
    for known in (0, 3):
        for folder, add in zip(folders, (0.0, 0.1)):
            auc = np.r_[np.linspace(0.4, 0.6, known) + add, np.full(USERS - known, np.nan)]
            per_user.save(folder, per_user.read(folder) | {"auc": auc.astype(np.float32)})
        lines = [line for part in table(folders) for line in part if "auc" in line]
        assert bool(lines) == bool(known)
    (line,) = [line for line in table(folders)[1] if "auc" in line]
    assert line[-6:-1] == ["auc", "3", "+0.1000", "+0.1000", "+0.1000"]


def test_runs_are_compared_over_the_rows_and_users_that_both_have(tmp_path):
    folders = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", model="mf", split_seed=3, split="random"),
    ]
    read = [per_user.read(folder) for folder in folders]
    random = np.random.RandomState(1)
    some = random.permutation(len(read[1]["row_key"]))[:60]  # in another order
    ranked = random.permutation(USERS)[:25]
    for name, values in read[1].items():
        read[1][name] = values[some] if name.startswith("row_") else values[ranked]
    per_user.save(folders[1], read[1])
    metrics, differences = table(folders)
    at = {key: place for place, key in enumerate(read[0]["row_key"])}
    places = [at[key] for key in read[1]["row_key"]]
    errors = read[0]["row_error"][places], read[1]["row_error"]
    for line, found in zip(metrics[1:], errors):
        assert line[2:4] == [f"{np.sqrt(np.mean(found**2)):.4f}", f"{np.mean(np.abs(found)):.4f}"]
    assert (
        metrics[1][4] == f"{read[0]['ndcg@10'][read[1]['ranked_key'].astype(int) - 7].mean():.4f}"
    )
    assert metrics[2][4] == f"{read[1]['ndcg@10'].mean():.4f}"
    users = len(np.unique(read[1]["row_user"]))
    assert [line[-5] for line in differences[1:4]] == [str(users), str(users), "25"]


def test_what_differs_and_what_is_common_comes_first(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", model="mf", split="random")]
    common, differing, *_ = comparison.compare(folders, [], 100, 0).split("\n\n")
    rows = len(per_user.read(folders[0])["row_key"])
    assert common.splitlines() == [
        f"common test rows: {rows:,} of {rows:,}",
        f"users with common test rows: {USERS} of {USERS}",
        f"common users ranked with the same relevant and masked products: {USERS} of {USERS}",
    ]
    found = {line.split()[0]: line.split()[1:] for line in differing.splitlines()}
    assert found["setting"] == list(map(str, folders))
    assert found["split"] == ["auto", "random"]
    assert found["model"] == ["ncf", "mf"]
    assert "workdir" not in found and "epochs" not in found


def test_users_who_were_ranked_among_other_candidates_are_not_compared(tmp_path):
    folders = [
        write_run(tmp_path / name, candidates_file=name, full_ranking=False) for name in "ab"
    ]
    metrics, _ = table(folders)
    assert metrics[0] == ["test", "seeds", "rmse", "mae"]


def test_runs_without_a_common_row_are_refused(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", rows=10**6)]
    with pytest.raises(UsageError, match=r"a: it shares no test row and no ranked user with"):
        comparison.compare(folders, [], 100, 0)


def test_a_run_that_is_judged_by_other_metrics_than_the_others_is_refused(tmp_path):
    """Its rows are nobody else's: it has nothing in common with the two rating runs."""
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", model="mf")]
    for folder in folders:
        arrays = per_user.read(folder)
        per_user.save(folder, {name: arrays[name] for name in comparison.ROWS})
    folders.append(write_run(tmp_path / "c", task="ranking"))
    assert len(table(folders[:2])) == 2
    with pytest.raises(UsageError, match=r"c: it shares no test row and no ranked user with"):
        comparison.compare(folders, [], 100, 0)


def test_an_unknown_metric_is_named_with_the_nearest(tmp_path):
    folders = [write_run(tmp_path / name) for name in "ab"]
    with pytest.raises(UsageError, match=r"--metrics=ndgc@10: .* Did you mean ndcg@10\?"):
        comparison.compare(folders, ["ndgc@10"], 100, 0)
