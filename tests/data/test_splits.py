"""Every split: what holds for all of them, and each one's own law against a plain loop."""

import json
from collections import defaultdict
from fractions import Fraction
from math import floor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from tests.conftest import make_dataset, replace, some_config
from tests.data import editions
from tfrec.data import disk, splits, to_disk
from tfrec.data.dataset import Dataset
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError

some = settings(max_examples=20, deadline=None)
worlds = st.builds(make_dataset, rows=st.integers(30, 100), seed=st.integers(0, 99))
fractions = st.sampled_from(["0.1", "0.2", "0.25", "0.3", "0.5", "0.9"])
seeds = st.integers(0, 2**32 - 1)
each_split = pytest.mark.parametrize(
    "how", [*(how for how in splits.RULES if how != "last_rows"), "random", "kfold", "files"]
)


def with_parts(dataset, how: str):
    """The data set, with what the files say where that is the split."""
    part = np.where(np.arange(len(dataset)) % 3 == 1, 2, 0).astype(np.int8)
    return replace(dataset, part=part) if how == "files" else dataset


def data_config(how: str, **changed):
    files = {"train_file": "a", "test_file": "b"} if how == "files" else {}
    return some_config(split=how, **files, **changed).data


def split(dataset, how: str, **changed) -> SimpleNamespace:
    """Row numbers to train, validate and test, rising: where the rows of Dataset.split stand."""
    dataset, config = with_parts(dataset, how), data_config(how, **changed)
    number = replace(dataset, rating=np.arange(len(dataset), dtype=np.float32))
    parts = number.split_by(config).parts()
    return SimpleNamespace(
        **{name: part.rating.astype(np.int64) for name, part in zip(PARTS, parts)}
    )


def test_of(dataset, how: str, fraction: str, **changed) -> list[int]:
    return split(
        dataset, how, test_fraction=float(fraction), validation_fraction=0.0, **changed
    ).test.tolist()


test_of.__test__ = False


def kept(fraction: str, count: int) -> int:
    """floor((1 - fraction) count), exactly."""
    return floor((1 - Fraction(fraction)) * count)


def by_time(dataset, rows) -> list[int]:
    return sorted(rows, key=lambda row: (dataset.interactions.timestamp[row], row))


def each_users(dataset) -> list[list[int]]:
    """Each user's rows in order of time."""
    rows = defaultdict(list)
    for row in range(len(dataset)):
        rows[dataset.interactions.user[row]].append(row)
    return [by_time(dataset, own) for own in rows.values()]


# What holds for all


@each_split
@some
@given(
    dataset=worlds,
    seed=seeds,
    validation=st.sampled_from([0.0, 0.1, 0.4]),
    rule=st.sampled_from(["split", "last_rows"]),
)
def test_the_parts_are_disjoint_sorted_cover_all_and_depend_on_nothing_but_the_seed(
    how, dataset, seed, validation, rule
):
    changed = {"split_seed": seed, "validation_fraction": validation, "validation_rule": rule}
    rows, again = split(dataset, how, **changed), split(dataset, how, **changed)
    parts = [rows.train, rows.validation, rows.test]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(dataset)))
    for part, same in zip(parts, (again.train, again.validation, again.test)):
        assert part.dtype == np.int64 and np.all(np.diff(part) > 0)
        np.testing.assert_array_equal(part, same)
    assert validation or not len(rows.validation)


@each_split
@some
@given(dataset=worlds, seed=seeds, fraction=st.sampled_from(["0.1", "0.25", "0.5"]))
def test_validation_rule_last_rows_takes_the_last_training_rows_by_user_and_product(
    how, dataset, seed, fraction
):
    try:
        without = split(dataset, how, split_seed=seed, validation_fraction=0.0)
    except UsageError:  # the last fifth of the product columns have no row
        reject()
    rows = split(
        dataset,
        how,
        split_seed=seed,
        validation_fraction=float(fraction),
        validation_rule="last_rows",
    )
    order = sorted(
        without.train.tolist(),
        key=lambda row: (dataset.interactions.user[row], dataset.interactions.product[row]),
    )
    assert rows.validation.tolist() == sorted(order[kept(fraction, len(order)) :])
    np.testing.assert_array_equal(rows.test, without.test)


@pytest.mark.parametrize("how", ["random", "cold_user", "cold_product", "kfold"])
def test_another_seed_is_another_split(dataset, how):
    assert len({tuple(split(dataset, how, split_seed=seed).test) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    "how", ["user_temporal", "temporal", "leave_one_out", "by_product", "files"]
)
def test_the_seed_means_nothing_to_splits_without_a_shuffle(dataset, how):
    assert len({tuple(split(dataset, how, split_seed=seed).test) for seed in range(5)}) == 1


@pytest.mark.parametrize(
    "how", ["user_temporal", "temporal", "leave_one_out", "by_product", "cold_user", "cold_product"]
)
@some
@given(dataset=worlds, seed=seeds)
def test_validation_is_cut_from_the_training_rows_by_the_splits_own_rule(how, dataset, seed):
    """That is.

    The validation rows are the test rows of a data set that holds nothing but the training rows.
    """
    whole = split(dataset, how, split_seed=seed, validation_fraction=0.0)
    rows = split(dataset, how, split_seed=seed, validation_fraction=0.3)
    np.testing.assert_array_equal(rows.test, whole.test)
    columns = {
        name: dataset.columns[name][whole.train]
        for name in ("user", "product", "rating", "timestamp", "context")
    }
    if how == "by_product":
        columns["product_ids"] = dataset.catalog.product_ids[: columns["product"].max() + 1]
    inner = split(
        replace(dataset, **columns),
        how,
        split_seed=(seed + 1) % 2**32,
        test_fraction=0.3,
        validation_fraction=0.0,
    )
    np.testing.assert_array_equal(rows.validation, whole.train[inner.test])


# Each one's own law


@some
@given(worlds, fractions)
def test_temporal_keeps_the_first_rows_by_time_and_file_order(dataset, fraction):
    order = by_time(dataset, range(len(dataset)))
    assert test_of(dataset, "temporal", fraction) == sorted(order[kept(fraction, len(order)) :])


@some
@given(worlds, fractions)
def test_user_temporal_keeps_each_users_first_rows_by_time_and_file_order(dataset, fraction):
    expected = [
        row for own in each_users(dataset) for row in own[max(kept(fraction, len(own)), 1) :]
    ]
    assert test_of(dataset, "user_temporal", fraction) == sorted(expected)


def test_a_long_tail_is_divided_as_asked_and_each_user_trains():
    random = np.random.default_rng(1)
    user = np.repeat(np.arange(3000), np.minimum(random.zipf(2.2, 3000), 30)).astype(np.int32)
    data = make_dataset(num_users=3000, num_products=300, rows=len(user))
    data = replace(data, user=user, timestamp=random.integers(0, 10**7, len(user)))
    rows = split(data, "user_temporal", test_fraction=0.2, validation_fraction=0.1)
    assert len(rows.test) / len(data) == pytest.approx(0.2, abs=0.01)
    assert len(rows.validation) / len(data) == pytest.approx(0.08, abs=0.02)
    assert set(data.interactions.user[rows.train]) == set(user)
    config = data_config("user_temporal")
    assert splits.surprises(data.split_by(config), config) == []


def test_what_surprises_is_said(dataset):
    """Who has two rows each has one of them tested.

    At random, and by time, some have none to train on.
    """
    twos = replace(
        dataset, user=np.repeat(np.arange(30, dtype=np.int32), 2), user_ids=np.arange(30)
    )

    def lines(how: str, **changed) -> list[str]:
        config = data_config(how, **changed)
        return splits.surprises(twos.split_by(config), config)

    (shares, *others) = lines("user_temporal")
    assert shares == "note: 50 % of all rows are tested, not 20 %: --split=user_temporal"
    assert others == ["note: 0 % of the others are validated, not 10 %: --split=user_temporal"]
    assert any(
        line.endswith("are of users without training rows, of whom a model knows nothing")
        for line in lines("temporal", test_fraction=0.8)
    )
    assert not lines("cold_user", validation_fraction=0.0)


def test_from_disk_the_same_is_said(dataset, tmp_path):
    twos = replace(
        dataset, user=np.repeat(np.arange(30, dtype=np.int32), 2), user_ids=np.arange(30)
    )
    config = data_config("temporal", test_fraction=0.8)
    rows, part = split(twos, "temporal", test_fraction=0.8), np.zeros(60, np.int8)
    part[rows.validation], part[rows.test] = 1, 2
    columns = {name: twos.columns[name] for name in ("user", "product", "rating", "timestamp")}
    sizes = to_disk.Sizes(block=4, shard=3)
    manifest = to_disk.write(tmp_path, twos.catalog, [(columns, part)], config, sizes)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    said = splits.surprises(twos.split_by(config), config)
    assert "are of users without training rows" in said[-1]
    assert splits.surprises(disk.open_folder(tmp_path), config) == said


@pytest.mark.parametrize("how", ["user_temporal", "leave_one_out"])
def test_the_published_protocols_keep_their_rows(movielens, how):
    """N4's and N1's rows, and the validation rows that settings are chosen on, by a plain loop.

    Nobody there has fewer than 20.
    """
    data = movielens.dataset
    order = np.lexsort((np.arange(len(data)), data.interactions.timestamp, data.interactions.user))
    expected = ([], [], [])
    for own in np.split(order, np.flatnonzero(np.diff(data.interactions.user[order])) + 1):
        fitted = kept("0.2", len(own)) if how == "user_temporal" else len(own) - 1
        trained = kept("0.1", fitted) if how == "user_temporal" else fitted - 1
        for part, rows in zip(expected, np.split(own, [trained, fitted])):
            part.extend(rows)
    rows = split(data, how)
    for found, part in zip((rows.train, rows.validation, rows.test), expected):
        np.testing.assert_array_equal(found, np.sort(part))


@some
@given(worlds)
def test_leave_one_out_holds_out_each_users_latest_row_but_never_his_only_one(dataset):
    expected = sorted(own[-1] for own in each_users(dataset) if len(own) > 1)
    assert test_of(dataset, "leave_one_out", "0.2") == expected


def test_leave_one_out_leaves_a_user_with_one_row_in_training(dataset):
    user = np.where(np.arange(60) == 7, 11, dataset.interactions.user % 11).astype(np.int32)
    rows = split(replace(dataset, user=user), "leave_one_out", validation_fraction=0.1)
    assert 7 in rows.train
    assert len(rows.test) == len(rows.validation) == 11


@some
@given(worlds, fractions)
def test_by_product_holds_out_the_last_columns(dataset, fraction):
    held_out = range(kept(fraction, dataset.catalog.num_products), dataset.catalog.num_products)
    expected = [row for row in range(len(dataset)) if dataset.interactions.product[row] in held_out]
    if 0 < len(expected) < len(dataset):
        assert test_of(dataset, "by_product", fraction) == expected


@pytest.mark.parametrize(("how", "column"), [("cold_user", "user"), ("cold_product", "product")])
@some
@given(dataset=worlds, fraction=st.sampled_from(["0.2", "0.25", "0.5"]), seed=seeds)
def test_cold_ids_have_all_their_rows_in_one_part(how, column, dataset, fraction, seed):
    rows = split(
        dataset, how, test_fraction=float(fraction), split_seed=seed, validation_fraction=0.3
    )
    ids = [
        set(dataset.columns[column][part].tolist())
        for part in (rows.train, rows.validation, rows.test)
    ]
    everyone = set().union(*ids)
    assert sum(map(len, ids)) == len(everyone)
    assert len(ids[2]) == floor(Fraction(fraction) * len(everyone))
    assert len(ids[1]) == floor(Fraction("0.3") * (len(everyone) - len(ids[2])))


@some
@given(worlds, st.integers(2, 7), seeds)
def test_kfold_is_scikit_learns(dataset, folds, seed):
    tested = [
        split(dataset, "kfold", folds=folds, fold=fold, split_seed=seed).test
        for fold in range(folds)
    ]
    expected = KFold(folds, shuffle=True, random_state=seed).split(np.arange(len(dataset)))
    for test, (_, other) in zip(tested, expected, strict=True):
        np.testing.assert_array_equal(test, np.sort(other))


@pytest.mark.parametrize("how", ["kfold", "files"])
def test_kfold_and_files_cut_validation_at_random(dataset, how):
    rows = split(dataset, how, validation_fraction=0.25)
    assert len(rows.validation) == floor(0.25 * (60 - len(rows.test)))
    other = split(dataset, how, validation_fraction=0.25, split_seed=1)
    assert rows.validation.tolist() != other.validation.tolist()


def test_random_is_the_split_of_the_benchmarks(movielens):
    """R1 of BENCHMARKS.md."""
    rows = split(movielens.dataset, "random", split_seed=0, test_fraction=0.2)
    order = np.random.RandomState(0).permutation(100836)
    np.testing.assert_array_equal(rows.test, np.sort(order[:20167]))
    assert len(rows.validation) == 8066  # a tenth of the others
    np.testing.assert_array_equal(np.union1d(rows.train, rows.validation), np.sort(order[20167:]))


@pytest.mark.parametrize("with_validation", [False, True])
def test_the_files_split_takes_the_rows_of_the_files(tmp_path, with_validation):
    folder = editions.write(tmp_path, "100k")
    parts = {
        "train": editions.RATINGS[:3],
        "test": editions.RATINGS[3:4],
        "validation": editions.RATINGS[4:],
    }
    if not with_validation:
        del parts["validation"]
    for part, rows in parts.items():
        (tmp_path / f"u1.{part}").write_text("\n".join(editions.ratings("\t", rows)) + "\n")
    config = some_config(
        dataset="100k",
        data_dir=str(folder),
        split="files",
        validation_fraction=0.0,
        **{f"{part}_file": str(tmp_path / f"u1.{part}") for part in parts},
    )
    dataset = Dataset.from_tables(editions.sources.read(config.data), config.data)
    for name, part in zip(PARTS, dataset.split_by(config.data).parts()):
        found = zip(
            dataset.catalog.user_ids[part.user],
            dataset.catalog.product_ids[part.product],
            part.rating,
            part.timestamp,
        )
        assert list(found) == parts.get(name, [])


# What cannot be


@pytest.mark.parametrize("how", ["temporal", "user_temporal", "leave_one_out"])
def test_splits_by_time_need_timestamps(dataset, how):
    with pytest.raises(UsageError, match="the data have no timestamps") as error:
        split(replace(dataset, timestamp=None), how)
    assert "\n" not in str(error.value)


@each_split
def test_the_other_splits_do_not(dataset, how):
    if how not in ("temporal", "user_temporal", "leave_one_out"):
        assert len(split(replace(dataset, timestamp=None), how).test)


def test_auto_means_user_temporal_where_there_is_time(dataset):
    assert dataset.default_split == "user_temporal"
    assert replace(dataset, timestamp=None).default_split == "random"


@pytest.mark.parametrize(
    ("how", "fractions"),
    [
        ("random", {"test_fraction": 0.0}),
        ("cold_user", {"test_fraction": 0.01}),
        ("by_product", {"test_fraction": 0.9}),
    ],
)
def test_a_part_without_rows_ends_in_one_line(how, fractions):
    dataset = make_dataset(rows=40)
    if how == "by_product":  # nobody rated the first column
        dataset = replace(dataset, product=np.full(40, 8, np.int32))
    with pytest.raises(
        UsageError, match=f"--split={how}: .* training and .* test rows; both need some"
    ):
        split(dataset, how, **fractions)
