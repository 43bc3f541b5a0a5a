"""A folder of blocks holds what was written, in memory and on disk alike."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.conftest import all_rows
from tests.data import own
from tests.worlds import write_1m
from tfrec.data import to_disk
from tfrec.data.disk import open_folder, prepared_with
from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.tables import PARTS
from tfrec.data.targets import fit, target_range
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import loading
from tfrec.experiments.config import make_config

COLUMNS = ("user", "product", "rating", "timestamp", "context")
SMALL = to_disk.Sizes(block=64, shard=3)


def write(folder, split, config, piece: int = 100, sizes=SMALL):
    """The parts of a split, one after the other, in pieces."""
    pieces = []
    for number, rows in enumerate(split.parts()):
        columns = {name: getattr(rows, name) for name in ("user", "product", "rating", "timestamp")}
        known = {name: column for name, column in columns.items() if column is not None}
        for start in range(0, len(rows), piece):
            cut = {name: column[start : start + piece] for name, column in known.items()}
            pieces.append((cut, np.full(len(cut["user"]), number, np.int8)))
    folder.mkdir()
    manifest = to_disk.write(folder, split.catalog, pieces, config, sizes)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(config, split, the folder of the same)."""
    folder = tmp_path_factory.mktemp("blocks")
    data = write_1m(folder / "world")
    config = make_config(
        dataset="1m",
        data_dir=str(data),
        workdir="unused",
        context=("weekend", "date"),
        split="temporal",
    )
    split, config = loading.load(config)
    return config, split, write(folder / "stored", split, config.data)


def same_rows(found: MemoryInteractions, expected: MemoryInteractions) -> None:
    for name in COLUMNS:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_everything_comes_back(world):
    _, split, folder = world
    stored, catalog = open_folder(folder), split.catalog
    for found, expected in zip(all_rows(folder).parts(), split.parts()):
        same_rows(found, expected)
    for name in ("user_ids", "product_ids", "default_context"):
        np.testing.assert_array_equal(getattr(stored.catalog, name), getattr(catalog, name))
        assert getattr(stored.catalog, name).dtype == getattr(catalog, name).dtype
    for name in ("name", "context_names", "rated"):
        assert getattr(stored.catalog, name) == getattr(catalog, name)
    for name in ("features", "user_features"):
        one, other = getattr(stored.catalog, name), getattr(catalog, name)
        np.testing.assert_array_equal(one.dense(), other.dense())
        assert one.names == other.names
    assert stored.catalog.products.to_dict("records") == catalog.products.to_dict("records")
    for found, expected in zip(stored.parts(), split.parts()):
        assert len(found) == len(expected)
        np.testing.assert_array_equal(found.users(), expected.users())
        for side in ("user", "product"):
            np.testing.assert_array_equal(found.counts(side), expected.counts(side))
    assert stored.train.sizes.tolist()[:-1] == [64 * 3] * (len(stored.train.files) - 1)
    assert prepared_with(stored)["split"] == "temporal"


@pytest.mark.parametrize("kind", ["none", "standard", "product_minmax", "global_minmax"])
def test_targets_are_scaled_as_in_memory(world, kind):
    _, split, folder = world
    check_same_targets(split, open_folder(folder), kind)


def check_same_targets(memory: Split, disk: Split, kind: str) -> None:
    one, other = (fit(kind, of.train.stats) for of in (disk, memory))
    for name in ("offset", "scale"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6)
    mean = memory.train.scaled_mean(other)
    assert disk.train.scaled_mean(one) == pytest.approx(mean, abs=1e-6)
    ranges = target_range(one, disk.train.stats), target_range(other, memory.train.stats)
    np.testing.assert_allclose(*ranges, rtol=1e-6, atol=1e-6)
    assert disk.train.stats.range == memory.train.stats.range


@pytest.mark.parametrize("kind", ["none", "standard", "product_minmax", "global_minmax"])
@pytest.mark.parametrize("equal", (False, True))
def test_odd_products_have_the_targets_that_they_have_in_memory(world, tmp_path, kind, equal):
    """One without training rows, one whose ratings are equal; and all ratings equal."""
    config, split, _ = world
    rows = split.train.take(split.train.product != 3)
    columns = {name: getattr(rows, name) for name in COLUMNS}
    columns["rating"] = np.where((rows.product == 5) | equal, np.float32(3.7), rows.rating)
    train = MemoryInteractions(split.catalog, columns)
    odd = Split(train, split.validation, split.test)
    check_same_targets(odd, open_folder(write(tmp_path / "odd", odd, config.data)), kind)


def test_those_of_some_users_are_in_memory(world):
    _, split, folder = world
    stored = open_folder(folder)
    tested = split.test.users()[:3]
    for found, expected in zip(stored.parts(), split.parts()):
        same_rows(found.of_users(tested), expected.of_users(tested))


def test_a_sample_has_all_rows_of_its_users(world):
    _, split, folder = world
    stored = open_folder(folder)
    sample = stored.sample(5)
    users = np.union1d(sample.validation.users(), sample.test.users())
    assert 5 <= len(users) <= 10 and set(sample.train.users()) <= set(users)
    for found, expected in zip(sample.parts(), split.parts()):
        same_rows(found, expected.of_users(users))
    assert stored.sample(5) is sample and stored.sample(0) is not sample
    assert len(stored.sample(0).test) == len(split.test)
    assert split.sample(5) is split  # it is in memory anyway


@pytest.mark.parametrize("side", ("user", "product"))
def test_what_stands_for_the_untrained_is_the_same_from_disk(world, side):
    _, split, folder = world
    weights = split.cold_weights(side)
    known = split.train.counts(side) > 0
    assert weights.sum() == pytest.approx(1) and not weights[~known].any()
    np.testing.assert_allclose(open_folder(folder).cold_weights(side), weights)
    ids, count = getattr(split.validation, side), split.train.counts(side)
    share = np.mean(~known[ids])
    expected = (1 - share) * known / known.sum() + share * count / count.sum()
    np.testing.assert_allclose(weights, expected)


def test_seen_products_are_those_of_training_and_validation(world):
    _, split, folder = world
    products, begin = split.seen_products()
    for user in range(split.catalog.num_users):
        rows = [part.product[part.user == user] for part in (split.train, split.validation)]
        assert products[begin[user] : begin[user + 1]].tolist() == np.concatenate(rows).tolist()
    for found, expected in zip(open_folder(folder).seen_products(), (products, begin)):
        np.testing.assert_array_equal(found, expected)


def test_training_rows_are_read_by_block_and_by_shard(world):
    _, split, folder = world
    stored = open_folder(folder).train
    expected = split.train.columns()
    chunks = list(stored.chunks())
    assert [len(chunk["user"]) for chunk in chunks][:-1] == [64] * (len(chunks) - 1)
    shards = list(tf.data.Dataset.range(len(stored.sizes)).map(stored.read, 2).as_numpy_iterator())
    assert [len(shard["user"]) for shard in shards] == stored.sizes.tolist()
    for pieces, names in ((chunks, set(expected)), (shards, set(expected))):
        assert set(pieces[0]) == names
        for name in names:
            found = np.concatenate([piece[name] for piece in pieces])
            np.testing.assert_array_equal(found, expected[name])
            assert found.dtype == expected[name].dtype


def test_tfds_reads_it(world):
    _, split, folder = world
    builder = tfds.builder_from_directory(str(folder))
    for name, rows in zip(PARTS, split.parts()):
        examples = list(tfds.as_numpy(builder.as_dataset(split=name, shuffle_files=False)))
        for column in ("user", "rating", "timestamp", "context"):
            found = np.concatenate([example[column] for example in examples])
            np.testing.assert_array_equal(found, getattr(rows, column))


def test_the_fingerprint_depends_on_the_rows_and_not_on_the_pieces(world, tmp_path):
    config, split, folder = world
    known = open_folder(folder).fingerprint
    again = write(tmp_path / "again", split, config.data, piece=777)
    assert open_folder(again).fingerprint == known
    rating = split.train.rating + (np.arange(len(split.train)) == 7)
    columns = {name: getattr(split.train, name) for name in COLUMNS} | {"rating": rating}
    changed = Split(MemoryInteractions(split.catalog, columns), split.validation, split.test)
    other = write(tmp_path / "other", changed, config.data)
    assert open_folder(other).fingerprint != known


def test_without_time_ratings_features_and_validation(tmp_path):
    own.write(tmp_path, ratings="user,product\nu1,p1\nu2,p2\nu2,p1\nu3,p1\n")
    settings = {
        "dataset": "files",
        "interactions": str(tmp_path / "ratings.csv"),
        "task": "ranking",
        "validation_fraction": 0.0,
    }
    split, config = loading.load(make_config(**settings, workdir="unused", test_fraction=0.25))
    folder = write(tmp_path / "stored", split, config.data)
    stored, (train, validation, test) = open_folder(folder), all_rows(folder).parts()
    assert train.timestamp is None and train.day is None and train.context.shape == (3, 0)
    assert (len(train), len(validation), len(test)) == (3, 0, 1)
    catalog = stored.catalog
    assert not catalog.rated
    assert list(catalog.user_ids) == ["u1", "u2", "u3"] and catalog.user_ids.dtype == object
    (chunk,) = stored.train.chunks()
    assert set(chunk) == {"user", "product", "rating", "context"}
    assert chunk["context"].shape == (3, 0)
    found = stored.train.read(tf.constant([0], tf.int64))["user"]
    np.testing.assert_array_equal(found, split.train.user)


def test_what_is_broken_ends_in_one_line(world, tmp_path):
    config, split, _ = world

    def fails(message: str, kind: type = TfrecError) -> None:
        with pytest.raises(kind, match=message) as error:
            list(open_folder(folder).train.chunks())
        assert "\n" not in str(error.value) and str(error.value).startswith(str(folder))

    folder = tmp_path / "stored"
    fails("there is no prepared data set in it", UsageError)
    write(folder, split, config.data)
    shard = folder / "blocks-train.tfrecord-00001"
    content = shard.read_bytes()
    shard.write_bytes(content[:-5])
    fails("blocks-train.tfrecord-00001 is not whole")
    shard.write_bytes(content[:100] + b"x" + content[101:])
    fails("corrupted record")
    shard.unlink()
    fails("blocks-train.tfrecord-00001 is missing")
    shard.write_bytes(content)
    for name in ("arrays.npz", "products.parquet", "user_ids.parquet"):
        kept = (folder / name).read_bytes()
        for wrong in (kept[:50], b"", None):
            if wrong is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(wrong)
            fails("cannot be read")
        (folder / name).write_bytes(kept)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    fails("written in version 99")
    for text in ("{", "[]", "{}"):
        (folder / "manifest.json").write_text(text)
        fails("cannot be read")


def test_lists_texts_and_gaps_of_the_products_table_come_back(world, tmp_path):
    config, split, _ = world
    count = split.catalog.num_products
    table = pd.DataFrame({"title": ["a"] * count, "tags": [["x", "y"], *[[]] * (count - 1)]})
    table["year"] = [np.nan] + [1990.0] * (count - 1)
    catalog = dataclasses.replace(split.catalog, products=table)
    columns = {name: getattr(split.train, name) for name in COLUMNS}
    rows = MemoryInteractions(catalog, columns)
    folder = write(tmp_path / "stored", Split(rows, split.validation, split.test), config.data)
    pd.testing.assert_frame_equal(open_folder(folder).catalog.products, table, check_dtype=False)
