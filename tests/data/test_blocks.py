"""A folder of blocks holds what was written, in memory and on disk alike."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.conftest import all_rows, replace
from tests.data import own
from tests.worlds import write_1m
from tfrec.config import make_config
from tfrec.data import blocks, to_disk, trained
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import loading

PARTS = ("train", "validation", "test")


def parts(rows, count: int) -> np.ndarray:
    found = np.full(count, -1, np.int8)
    for number, name in enumerate(PARTS):
        found[getattr(rows, name)] = number
    return found


def write(folder, dataset, rows, config, piece: int = 100, **sizes):
    """The rows in pieces."""
    names = [
        name
        for name in ("user", "product", "rating", "timestamp")
        if getattr(dataset, name) is not None
    ]
    part = parts(rows, len(dataset))
    pieces = [slice(start, start + piece) for start in range(0, len(dataset), piece)]
    folder.mkdir()
    to_disk.write(
        folder,
        dataset,
        (({name: getattr(dataset, name)[at] for name in names}, part[at]) for at in pieces),
        config,
        **sizes,
    )
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(config, dataset, rows, the folder of the same)."""
    folder = tmp_path_factory.mktemp("blocks")
    data = write_1m(folder / "world")
    config = make_config(
        dataset="1m",
        data_dir=str(data),
        workdir="unused",
        target_scaling="product_minmax",
        context=("weekend", "date"),
        split="temporal",
    )
    dataset, rows, config = loading.load(config)
    return (
        config,
        dataset,
        rows,
        write(folder / "stored", dataset, rows, config.data, block=64, shard=3),
    )


def test_everything_comes_back(world):
    _, dataset, rows, folder = world
    found, found_rows = all_rows(folder)
    stored = found.stored
    for name in ("user", "product", "rating", "timestamp", "context"):
        assert getattr(found, name).dtype == getattr(dataset, name).dtype
        for part in PARTS:
            np.testing.assert_array_equal(
                getattr(found, name)[getattr(found_rows, part)],
                getattr(dataset, name)[getattr(rows, part)],
            )
    for name in (
        "features",
        "user_features",
        "user_ids",
        "product_ids",
        "offset",
        "scale",
        "default_context",
    ):
        np.testing.assert_array_equal(getattr(found, name), getattr(dataset, name))
        assert getattr(found, name).dtype == getattr(dataset, name).dtype
    for name in ("name", "context_names", "feature_names", "user_feature_names", "rated", "part"):
        assert getattr(found, name) == getattr(dataset, name)
    assert found.products.to_dict("records") == dataset.products.to_dict("records")
    assert [stored.size(part) for part in PARTS] == [len(getattr(rows, part)) for part in PARTS]
    assert stored.sizes.tolist()[:-1] == [64 * 3] * (len(stored.files["train"]) - 1)
    np.testing.assert_array_equal(
        stored.user_counts, np.bincount(dataset.user[rows.train], minlength=dataset.num_users)
    )
    np.testing.assert_array_equal(
        stored.product_counts,
        np.bincount(dataset.product[rows.train], minlength=dataset.num_products),
    )
    assert stored.mean == pytest.approx(dataset.targets(rows.train).mean(), abs=1e-6)
    assert stored.manifest["settings"]["split"] == "temporal"


def test_none_or_those_of_some_users_are_in_memory(world):
    _, dataset, rows, folder = world
    on_disk = blocks.open(folder)
    assert len(on_disk) == 0 and on_disk.context.shape == (0, len(dataset.context_names))
    for part in PARTS:
        np.testing.assert_array_equal(
            blocks.users_of(on_disk, part), np.unique(dataset.user[getattr(rows, part)])
        )
    tested = blocks.users_of(on_disk, "test")
    for parts in (PARTS, ("test",)):
        found, found_rows = blocks.with_rows(on_disk, tested[:3], parts)
        for part in PARTS:
            theirs = getattr(rows, part)[
                np.isin(dataset.user[getattr(rows, part)], tested[:3]) & (part in parts)
            ]
            for name in ("user", "product", "rating", "timestamp", "context"):
                np.testing.assert_array_equal(
                    getattr(found, name)[getattr(found_rows, part)], getattr(dataset, name)[theirs]
                )
        assert 0 < len(found) < len(dataset) and found.stored is on_disk.stored


@pytest.mark.parametrize("side", ("user", "product"))
def test_what_stands_for_the_untrained_does_not_depend_on_the_rows_in_memory(world, side):
    _, dataset, rows, folder = world
    expected, on_disk = (
        trained.typical(dataset, rows.train, rows.validation, side),
        blocks.open(folder),
    )
    known = np.unique(getattr(dataset, side)[rows.train])
    assert on_disk.stored.untrained[side] == pytest.approx(
        np.mean(~np.isin(getattr(dataset, side)[rows.validation], known))
    )
    none = np.zeros(0, np.int64)
    np.testing.assert_allclose(trained.typical(on_disk, none, none, side), expected)


def test_training_rows_are_read_by_block_and_by_shard(world):
    _, dataset, rows, folder = world
    stored = blocks.open(folder).stored
    expected = dataset.columns(rows.train) | {"rating": dataset.rating[rows.train]}
    chunks = list(stored.chunks())
    assert [len(chunk["user"]) for chunk in chunks][:-1] == [64] * (len(chunks) - 1)
    shards = list(tf.data.Dataset.range(len(stored.sizes)).map(stored.read, 2).as_numpy_iterator())
    assert [len(shard["user"]) for shard in shards] == stored.sizes.tolist()
    for pieces in (chunks, shards):
        assert set(pieces[0]) == set(expected)
        for name, column in expected.items():
            found = np.concatenate([piece[name] for piece in pieces])
            np.testing.assert_array_equal(found, column)
            assert found.dtype == column.dtype


def test_tfds_reads_it(world):
    _, dataset, rows, folder = world
    builder = tfds.builder_from_directory(str(folder))
    for name in PARTS:
        examples = list(tfds.as_numpy(builder.as_dataset(split=name, shuffle_files=False)))
        for column in ("user", "rating", "timestamp", "context"):
            found = np.concatenate([example[column] for example in examples])
            np.testing.assert_array_equal(found, getattr(dataset, column)[getattr(rows, name)])


def test_the_fingerprint_depends_on_the_rows_and_not_on_the_pieces(world, tmp_path):
    config, dataset, rows, folder = world
    known = blocks.open(folder).stored.fingerprint
    again = write(tmp_path / "again", dataset, rows, config.data, piece=777, block=64, shard=3)
    assert blocks.open(again).stored.fingerprint == known
    changed = replace(dataset, rating=dataset.rating + (np.arange(len(dataset)) == 7))
    other = write(tmp_path / "other", changed, rows, config.data, block=64, shard=3)
    assert blocks.open(other).stored.fingerprint != known


def test_without_time_ratings_features_and_validation(tmp_path):
    own.write(tmp_path, ratings="user,product\nu1,p1\nu2,p2\nu2,p1\nu3,p1\n")
    settings = {
        "dataset": "files",
        "interactions": str(tmp_path / "ratings.csv"),
        "task": "ranking",
        "validation_fraction": 0.0,
    }
    dataset, rows, config = loading.load(
        make_config(**settings, workdir="unused", test_fraction=0.25)
    )
    found, found_rows = all_rows(write(tmp_path / "stored", dataset, rows, config.data))
    stored = found.stored
    assert (
        found.timestamp is None
        and found.context.shape == (4, 0)
        and not found.rated
        and found.day is None
    )
    assert (
        found_rows.train.tolist(),
        found_rows.validation.tolist(),
        found_rows.test.tolist(),
    ) == ([0, 1, 2], [], [3])
    assert list(found.user_ids) == ["u1", "u2", "u3"] and found.user_ids.dtype == object
    (chunk,) = stored.chunks()
    assert set(chunk) == {"user", "product", "rating", "context"} and chunk["context"].shape == (
        3,
        0,
    )
    np.testing.assert_array_equal(
        stored.read(tf.constant(0, tf.int64))["user"], dataset.user[rows.train]
    )


def test_what_is_broken_ends_in_one_line(world, tmp_path):
    config, dataset, rows, _ = world

    def fails(message: str, kind: type = TfrecError) -> None:
        with pytest.raises(kind, match=message) as error:
            list(blocks.open(folder).stored.chunks())
        assert "\n" not in str(error.value) and str(error.value).startswith(str(folder))

    folder = tmp_path / "stored"
    fails("there is no prepared data set in it", UsageError)
    write(folder, dataset, rows, config.data, block=64, shard=3)
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
    config, dataset, rows, _ = world
    table = pd.DataFrame(
        {
            "title": ["a"] * dataset.num_products,
            "tags": [["x", "y"], *[[]] * (dataset.num_products - 1)],
        }
    )
    table["year"] = [np.nan] + [1990.0] * (len(table) - 1)
    found = blocks.open(
        write(tmp_path / "stored", replace(dataset, products=table), rows, config.data)
    )
    pd.testing.assert_frame_equal(found.products, table, check_dtype=False)
