"""What prepare.py writes is what loading.load has in memory.

The same rows in the same parts, whatever the source and its form.
"""

import fcntl
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import all_rows, some_config
from tests.data import editions, own
from tests.end_to_end.scripts import SCRIPTS, script
from tests.worlds import write_1m
from tfrec.data import ingest, prepare, splits
from tfrec.data.disk import open_folder, prepared_with
from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions, in_memory
from tfrec.data.reading import database
from tfrec.data.settings import SPLITS
from tfrec.data.sources.synthetic import SyntheticData
from tfrec.data.to_disk import Sizes
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import loading
from tfrec.experiments.config import make_config

OWN = {
    "dataset": "files",
    "split": "random",
    "test_fraction": 0.4,
    "validation_fraction": 0.3,
    "workdir": "unused",
}


def prepared(output: Path, **settings) -> Split:
    """The folder, in small blocks; its rows in memory."""
    prepare.prepare(some_config(**settings).data, output, sizes=Sizes(block=64, shard=3))
    assert [path.name for path in output.parent.glob("*.draft*")] == []
    return all_rows(output)


def contents(rows: MemoryInteractions) -> list[tuple]:
    """Raw ids, rating, timestamp and context of the rows."""
    catalog = rows.catalog
    columns = [catalog.user_ids[rows.user], catalog.product_ids[rows.product], rows.rating]
    columns += [] if rows.timestamp is None else [rows.timestamp]
    return [(*row, tuple(context)) for *row, context in zip(*columns, rows.context.tolist())]


def check_same(output: Path, in_memory: dict | None = None, **settings) -> dict:
    """The folder holds what loading.load gives (with the settings of `in_memory`, if any).

    Returns the settings that it was prepared with.
    """
    split, config = loading.load(some_config(**settings | (in_memory or {})))
    found, task = prepared(output, **settings), config.task
    stored, _ = loading.load(some_config(dataset=f"blocks:{output}", task=task, workdir="unused"))
    one, other = (of.train.stats for of in (stored, split))
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(one.high, other.high)
    assert (one.mean, one.deviation) == pytest.approx((other.mean, other.deviation), rel=1e-6)
    for one, other, of_disk in zip(found.parts(), split.parts(), stored.parts()):
        assert contents(one) == contents(other)
        assert len(of_disk) == len(other)
    catalog = split.catalog
    for name in ("user_ids", "product_ids", "default_context"):
        np.testing.assert_array_equal(getattr(found.catalog, name), getattr(catalog, name))
        assert getattr(found.catalog, name).dtype == getattr(catalog, name).dtype
    for name in ("context_names", "rated"):
        assert getattr(found.catalog, name) == getattr(catalog, name)
    for name in ("features", "user_features"):
        one, other = getattr(found.catalog, name), getattr(catalog, name)
        np.testing.assert_array_equal(one.dense(), other.dense())
        assert one.names == other.names
    table, expected = (of.products.astype(str).to_dict("list") for of in (found.catalog, catalog))
    assert table == expected
    return prepared_with(stored)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    folder = write_1m(tmp_path_factory.mktemp("world"))
    return {"dataset": "1m", "data_dir": str(folder), "workdir": "unused"}


@pytest.fixture
def small_pieces(monkeypatch):
    """Everything in several pieces, as large data are."""
    monkeypatch.setattr(ingest, "AT_ONCE", 1)


@pytest.mark.parametrize("how", [how for how in SPLITS if how != "files"])
def test_each_split_gives_the_rows_that_it_gives_in_memory(world, tmp_path, small_pieces, how):
    own = {"split_seed": 3, "folds": 4, "fold": 2} if how != "auto" else {}
    settings = check_same(tmp_path / "out", **world, split=how, **own)
    assert settings["split"] == ("user_temporal" if how == "auto" else how)


def test_a_setting_that_the_split_of_the_data_lacks_ends_in_one_line(world):
    with pytest.raises(UsageError) as error:
        loading.load(make_config(**world, split_seed=3))
    assert str(error.value) == (
        "--split_seed: no part of this run has it. It goes with --split=random or cold_user or "
        "cold_product or kfold or files. With these data --split=auto is user_temporal."
    )


def test_the_last_rows_validate_and_dates_are_context(world, tmp_path, small_pieces):
    check_same(
        tmp_path / "out",
        **world,
        validation_rule="last_rows",
        context=("date", "month"),
        time_zone="Asia/Tokyo",
        year_bins=10,
    )


@pytest.mark.parametrize("edition", ["latest", "100k", "10m"])
def test_every_layout_of_movielens(tmp_path, small_pieces, edition):
    check_same(
        tmp_path / "out",
        **OWN | {"dataset": edition},
        data_dir=str(editions.write(tmp_path, edition)),
    )


@pytest.mark.parametrize("validation", [False, True])
def test_the_files_split(tmp_path, validation):
    for name, rows in (
        ("train", own.RATINGS),
        ("test", "user,product,rating,timestamp\nu1,p3,2,7\nu9,p1,2,7\nu9,p1,3,8\n"),
        ("valid", own.RATINGS),
    ):
        (tmp_path / f"{name}.csv").write_text(rows)
    files = {"train_file": str(tmp_path / "train.csv"), "test_file": str(tmp_path / "test.csv")}
    files |= {"validation_file": str(tmp_path / "valid.csv")} if validation else {}
    check_same(tmp_path / "out", **OWN | {"split": "files"}, **files)


def test_tables_of_attributes(tmp_path):
    own.write(tmp_path, ratings=own.RATINGS + "u3,p9,4,1500000000\n")
    tables = {
        "interactions": str(tmp_path / "ratings.csv"),
        "products": str(tmp_path / "products.csv"),
        "users": str(tmp_path / "users.csv"),
    }
    check_same(tmp_path / "out", **OWN, **tables, **own.FEATURES, **own.OF_USERS)


# Repeated rows, in several pieces and not


REPEATED = pd.DataFrame(
    {
        "user": np.arange(300) % 23,
        "product": np.arange(300) % 19 % 7,
        "rating": np.arange(300) % 9 / 2,
        "timestamp": np.arange(300) * 7919 % 50,
    }
)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("how", ["last", "mean"])
def test_repeated_rows_are_those_that_are_left_out_in_memory(tmp_path, small_pieces, how, times):
    (REPEATED if times else REPEATED.drop(columns="timestamp")).to_csv(
        tmp_path / "r.csv", index=False
    )
    check_same(tmp_path / "out", **OWN, interactions=str(tmp_path / "r.csv"), duplicates=how)


def test_repeated_rows_as_an_error(tmp_path, small_pieces):
    REPEATED.iloc[:200].to_csv(tmp_path / "a.csv", index=False)
    settings = OWN | {"duplicates": "error"}
    with pytest.raises(TfrecError) as in_memory:
        loading.load(some_config(**settings, interactions=str(tmp_path / "a.csv")))
    with pytest.raises(TfrecError) as error:
        prepared(tmp_path / "out", **settings, interactions=str(tmp_path / "a.csv"))
    assert str(error.value) == str(in_memory.value)
    distinct = REPEATED.drop_duplicates(["user", "product"])
    distinct.to_csv(tmp_path / "a.csv", index=False)
    distinct.assign(user=lambda table: table["user"] + (table.index != 5) * 100).to_csv(
        tmp_path / "b.csv", index=False
    )
    with pytest.raises(
        TfrecError, match=r"^b\.csv, row 7: user 5 and product 5 stand in an earlier row"
    ):
        prepared(tmp_path / "out", **settings, interactions=str(tmp_path / "?.csv"))


# Forms


def rows_of(count: int = 400) -> pd.DataFrame:
    random = np.random.RandomState(0)
    pairs = random.permutation(80 * 40)[:count]
    table = pd.DataFrame(
        {
            "user": [f"u{pair // 40}" for pair in pairs],
            "product": pairs % 40,
            "rating": random.randint(1, 6, count) / 2,
        }
    )
    return table.assign(timestamp=random.randint(10**9, 2 * 10**9, count))


FORMS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "gzip": lambda table, path: path.write_bytes(gzip.compress(table.to_csv(index=False).encode())),
    "quoted": lambda table, path: table.assign(more='a "b",\nc').to_csv(
        path, index=False, quoting=1
    ),
    "some quoted": lambda table, path: table.assign(more=["x", 'y\nz"'] * 200).to_csv(
        path, index=False
    ),
    "windows": lambda table, path: table.to_csv(path, index=False, lineterminator="\r\n"),
    "blank lines": lambda table, path: path.write_text(
        table.to_csv(index=False).replace("\nu7", "\n\nu7").rstrip()
    ),
    "parquet": lambda table, path: table.to_parquet(path),
    "odd parquet": lambda table, path: table.assign(
        product=table["product"].astype(str),
        timestamp=pd.to_datetime(table["timestamp"], unit="s"),
        rating=table["rating"].astype(str),
    ).to_parquet(path, row_group_size=50),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_pieces(tmp_path, small_pieces, form):
    FORMS[form](rows_of(), tmp_path / "rows")
    check_same(tmp_path / "out", **OWN, interactions=str(tmp_path / "rows"))


def test_several_files_are_as_one(tmp_path, small_pieces):
    table = rows_of()
    table.to_csv(tmp_path / "whole.csv", index=False)
    for name, part in zip("abc", (table[:100], table[100:101], table[101:])):
        part.to_csv(tmp_path / f"part-{name}.csv.gz", index=False)
    whole = {"interactions": str(tmp_path / "whole.csv")}
    check_same(tmp_path / "out", whole, **OWN, interactions=str(tmp_path / "part-*.csv.gz"))
    named = ",".join(str(tmp_path / f"part-{name}.csv.gz") for name in "abc")
    check_same(tmp_path / "out2", whole, **OWN, interactions=named)


def test_ids_that_are_text_in_one_file_are_text_in_all(tmp_path):
    table = rows_of().assign(user=lambda table: table["user"].str[1:])
    table[:200].to_csv(tmp_path / "a.csv", index=False)
    table[200:].assign(user="x" + table["user"][200:]).to_csv(tmp_path / "b.csv", index=False)
    pd.concat([pd.read_csv(tmp_path / f"{name}.csv", dtype=str) for name in "ab"]).to_csv(
        tmp_path / "whole.csv", index=False
    )
    files = {"interactions": f"{tmp_path}/a.csv,{tmp_path}/b.csv"}
    check_same(tmp_path / "out", {"interactions": str(tmp_path / "whole.csv")}, **OWN, **files)


# Bad rows


def write_bad(folder: Path, row: int, text: str = "u1,p1,bad,5") -> Path:
    """Two files of 100 rows, the second with a bad row."""
    for name in "ab":
        lines = [
            "user,product,rating,timestamp",
            *(f"u{at},{name}{at},3,{at}" for at in range(100)),
        ]
        if name == "b":
            lines[row - 1] = text
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder / "?.csv"


@pytest.mark.parametrize("row", [2, 77, 101])
def test_a_bad_row_of_the_second_file_is_named_and_nothing_is_left(tmp_path, small_pieces, row):
    files = str(write_bad(tmp_path, row))
    with pytest.raises(
        TfrecError,
        match=rf'^b\.csv, row {row}, column rating: "bad" is not a number\. Mend the file, or '
        rf"skip such rows",
    ):
        prepared(tmp_path / "out", **OWN, interactions=files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('u1,"p1,3,5', r"^b\.csv, row 90: is a quotation mark missing"),
        ("u1,p1,3", r"^b\.csv, row 90: expected 4 fields, found 3\."),
        (
            "u1,p1,3,99999999999",
            r"^b\.csv, row 90, column timestamp: \"99999999999\" is not a time in seconds",
        ),
        ("u1,,3,5", r"^b\.csv, row 90, column product: the value is missing\."),
    ],
)
def test_what_else_can_be_wrong_with_a_row(tmp_path, small_pieces, text, message):
    with pytest.raises(TfrecError, match=message):
        prepared(tmp_path / "out", **OWN, interactions=str(write_bad(tmp_path, 90, text)))


def test_bad_rows_that_are_skipped_are_counted_over_all_pieces(tmp_path, small_pieces):
    files = str(write_bad(tmp_path, 7))
    text = (
        (tmp_path / "b.csv")
        .read_text()
        .replace("u80,b80,3", "u80,b80,x")
        .replace("u50,b50,3,50", "u50,b50,3,99999999999")
    )
    (tmp_path / "b.csv").write_text(text)
    told = prepare.prepare(
        some_config(**OWN, interactions=files, on_bad_rows="skip").data, tmp_path / "out"
    )
    assert [line for line in told.splitlines() if "csv: skipped" in line] == [
        "b.csv: skipped 3 rows (column rating 2, column timestamp 1); the first: row 7, column "
        'rating: "bad" is not a number.'
    ]
    assert "97 of" not in told and sum(map(len, all_rows(tmp_path / "out").parts())) == 197


def test_files_without_rows_or_with_other_columns(tmp_path):
    table = rows_of()
    table.to_csv(tmp_path / "a.csv", index=False)
    table[:0].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(TfrecError, match=r"^b\.csv: the file holds no rows"):
        prepared(tmp_path / "out", **OWN, interactions=str(tmp_path / "?.csv"))
    table.drop(columns="rating").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(TfrecError, match=r"^b\.csv: column rating is not in each of the files"):
        prepared(tmp_path / "out", **OWN, interactions=str(tmp_path / "?.csv"))
    with pytest.raises(TfrecError, match="there is no such file"):
        prepared(tmp_path / "out", **OWN, interactions=str(tmp_path / "*.tsv"))


# The folder


def test_a_folder_that_is_there_is_refused(world, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(
        UsageError,
        match=r"^--output=.*: it is there already\. Take another folder, or remove it\.$",
    ):
        prepared(tmp_path / "out", **world)


def test_a_split_that_cannot_be_leaves_nothing(world, tmp_path):
    with pytest.raises(UsageError, match="both need some"):
        prepared(tmp_path / "out", **world, split="random", test_fraction=0.0)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_the_same_folder(world, tmp_path):
    (tmp_path / "out.draft").mkdir()
    folder = os.open(tmp_path / "out.draft", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another process is writing it"):
        prepare.prepare(some_config(**world).data, tmp_path / "out")
    os.close(folder)


def heeds_ctrl_c() -> None:
    """A shell's background jobs, of which the tests may be one, inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_leaves_no_folder_and_the_same_command_starts_again(tmp_path):
    flags = ["--dataset=synthetic", f"--output={tmp_path / 'out'}"]
    for kind, code, left in ((signal.SIGINT, 130, []), (signal.SIGKILL, -9, ["out.draft"])):
        command = [sys.executable, str(SCRIPTS / "prepare.py"), *flags, "--rows=4000000"]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c
        )
        while not list(tmp_path.glob("out.draft/*train*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(kind)
        message = process.communicate()[1]
        assert process.returncode == code and [path.name for path in tmp_path.iterdir()] == left
        assert (
            kind == signal.SIGKILL
            or message
            == "prepare.py: interrupted; nothing was left behind. The same command starts again.\n"
        )
    assert "split random: 21,600 rows to train, 2,400 to validate, 6,000 to test" in script(
        "prepare", *flags, "--rows=30000"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    manifest = open_folder(tmp_path / "out").train.folder.manifest
    assert manifest["world"] == {"users": 10_000, "products": 1_000, "rows": 30_000, "seed": 0}
    world, errors = SyntheticData(10_000, 1_000, 30_000), []
    for rows in in_memory(all_rows(tmp_path / "out")):
        errors.append(rows.rating - world.mean(rows.user, rows.product, rows.timestamp))
    deviation = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    assert deviation == pytest.approx(manifest["noise_floor"], rel=0.03)


def test_a_world_has_the_rows_that_it_has_in_memory(tmp_path):
    world, config = SyntheticData(300, 200, 5_000, 7), some_config(split="random").data
    drawn = some_config(dataset="synthetic", context=("weekend", "date")).data
    prepare.prepare(drawn, tmp_path / "out", world, Sizes(block=64, shard=3))
    found, made = all_rows(tmp_path / "out"), world.block(0)
    assert prepared_with(open_folder(tmp_path / "out"))["split"] == "random"
    part = splits.divide(splits.Table(database(), "", frozenset(), 5_000, 200), config)
    expected = (part == number for number in range(3))
    for rows, chosen in zip(in_memory(found), expected):
        for name in ("user", "product", "rating", "timestamp"):
            np.testing.assert_array_equal(getattr(rows, name), made[name][chosen])
    catalog = found.catalog
    assert catalog.features.shape == (200, 18) and list(catalog.products) == ["title", "genres"]
    latest = (made["timestamp"].max() - 946_684_800) / 86_400 / 3652.5
    assert catalog.default_context[1] == pytest.approx(latest, abs=1e-3)


def test_a_wrong_flag_ends_in_one_line():
    assert (
        script("prepare", "--output=x", "--rows=5", code=2)
        == "prepare.py: --rows and --seed go with --dataset=synthetic.\n"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"users": "many"}, "--users=many: expected a whole number with dataset=synthetic."),
        ({"products": "0"}, "--products=0: expected a whole number with dataset=synthetic."),
        ({"data_dir": "x"}, "--data_dir: no part of this run has it. It goes with --dataset="),
        (
            {"interactions": "x"},
            "--interactions: no part of this run has it. It goes with",
        ),
        (
            {"split": "files", "train_file": "a", "test_file": "b"},
            "--split=files needs --dataset=files or a MovieLens edition.",
        ),
    ],
)
def test_what_does_not_go_with_a_synthetic_world(settings, message):
    with pytest.raises(UsageError) as error:
        make_config(dataset="synthetic", **settings)
    assert str(error.value).startswith(message)


def test_a_synthetic_world_is_not_read_in_memory():
    with pytest.raises(UsageError, match=r"draw it with scripts/prepare\.py"):
        loading.load(some_config(dataset="synthetic"))
