"""A world whose ids, titles, attributes, columns and file names steer terminals, break lines and
speak Markdown: shown, never obeyed.
"""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tfrec import cli as command
from tfrec.data import prepare
from tfrec.errors import TfrecError
from tfrec.experiments import comparison, finished, report, run, tuning
from tfrec.experiments.config import make_config
from tfrec.experiments.exported import ExportedModel
from tfrec.experiments.flags import read_flagfile

RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]"
)  # but tab and line break
BREAK = "GOTCHA"  # what stands behind a line break: no printed line begins with it
EVIL = f"\x1b]0x\x07\x1b[31m\n{BREAK}\u202e|![x](http://evil)<b>$\\frac$"
NAME = EVIL.replace("\n", "").replace("/", "")  # a setting has no line break, a file name no slash


def write(path: Path, rows: list[list]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    """Settings of the data: 16 users, 12 products."""
    folder, random = tmp_path_factory.mktemp("world"), np.random.RandomState(0)
    taken = [
        [f"u{u}{EVIL}", f"p{p}{EVIL}", 1 + int(p % 2 == u % 2) * 3, t]
        for t, (u, p) in enumerate(np.ndindex(16, 12))
    ]
    kept = [taken[row] for row in np.sort(random.permutation(len(taken))[:120])]
    head = ["user" + NAME, "product" + NAME, "rating", "timestamp"]
    broken = [[f"u0{EVIL}", f"p0{EVIL}", f"bad{EVIL}", 1]]
    products = [["product" + NAME, "title" + NAME, "kind" + NAME, "unused" + EVIL]]
    products += [[f"p{p}{EVIL}", f"T{p}{EVIL}", f"k{p % 2}{EVIL}", 0] for p in range(11)]
    people = [
        ["user" + NAME, "town" + NAME],
        *([f"u{u}{EVIL}", f"t{u % 2}{EVIL}"] for u in range(15)),
    ]
    return {
        "dataset": "files",
        "interactions": write(folder / f"r{NAME}.csv", [head, *kept, kept[3], *broken]),
        "products": write(folder / f"p{NAME}.csv", products),
        "users": write(folder / f"u{NAME}.csv", people),
        "user_column": head[0],
        "product_column": head[1],
        "products_title": products[0][1],
        "products_categorical": (products[0][2],),
        "users_categorical": (people[0][1],),
        "on_bad_rows": "skip",
        "split": "random",
    }


def failed(call) -> None:
    """Prints the error of a call as a script does."""
    with pytest.raises(TfrecError) as caught:
        call()
    with pytest.raises(SystemExit):
        command.fail(str(caught.value), 1)


def check(printed: str) -> None:
    assert not RAW.search(printed)
    assert not any(line.startswith(BREAK) for line in printed.splitlines())
    assert all(len(line) < 2000 for line in printed.splitlines())


def texts(folder: Path) -> str:
    """All texts of TensorBoard's events."""
    events = EventAccumulator(str(folder), {"tensors": 0}).Reload()
    found = [
        event.tensor_proto for tag in events.Tags()["tensors"] for event in events.Tensors(tag)
    ]
    arrays = [
        tensor_util.make_ndarray(proto) for proto in found if proto.dtype == 7
    ]  # strings, and pictures among them
    return "\n".join(
        text.decode(errors="replace")
        for array in arrays
        for text in array.ravel()
        if b"PNG" not in text
    )


def test_nothing_of_the_data_steers_the_console_or_tensorboard(world, tmp_path, capfd):
    settings = world | {"model": "hybrid", "epochs": 1, "batch_size": 64, "embedding_dim": 4}
    folder = tmp_path / re.sub(r"[\[\\]", "", f"run{NAME}")
    print(report.table(run.train(make_config(**settings, workdir=str(folder))).record))
    run.train(make_config(**settings, workdir=str(folder)))
    served = ExportedModel(folder)
    town = next(name for name in served.catalog.user_features.names if name.endswith(EVIL))
    assert EVIL in served.catalog.products["title"][0] and EVIL in served.catalog.user_ids[0]
    print(
        served.for_user("u3" + EVIL, 3),
        served.for_likes("T1" + EVIL, 3),
        served.for_attributes(town, 3),
        sep="\n",
    )
    failed(lambda: served.for_user("u333" + EVIL, 3))
    failed(lambda: served.for_likes("T333" + EVIL, 3))
    failed(lambda: served.for_attributes(town + "9", 3))
    print(report.table(finished.evaluate(folder, {})))
    print(comparison.compare([folder, folder], ["rmse"], 100, 0))
    print(report.of_runs([folder], ["rmse"]))
    failed(lambda: report.of_runs([folder], ["no" + EVIL]))
    failed(lambda: finished.evaluate(tmp_path / NAME, {}))
    print(prepare.prepare(make_config(**world).data, tmp_path / f"blocks{NAME}"))
    failed(
        lambda: prepare.prepare(
            make_config(**world | {"on_bad_rows": "error"}).data, tmp_path / NAME
        )
    )
    failed(
        lambda: prepare.prepare(
            make_config(**world | {"duplicates": "error"}).data, tmp_path / NAME
        )
    )
    ranges = [tuning.parse("learning_rate=0.01,0.02")]
    print(
        tuning.search(
            make_config(**settings, workdir=f"{folder}-search"),
            ranges,
            1,
            "random",
            f"tune.py {EVIL}",
        )
    )
    best = Path(f"{folder}-search", "best.flags")
    assert f"\n{BREAK}" not in best.read_text() and read_flagfile(best).model == "hybrid"
    printed, errors = capfd.readouterr()
    check(printed)
    check(errors)
    assert printed.count(BREAK) > 40 and all(
        word in printed
        for word in ("skipped 1 row", "unused columns", "repeat a user", "no row for")
    )
    assert errors.count(BREAK) > 8
    written = texts(folder / "logs")
    assert not RAW.search(written) and written.count(BREAK) > 10
    shown = [
        line for line in written.splitlines() if line.startswith("|") and BREAK in line
    ]  # the rest is a block of code
    assert len(shown) == 3 and all(
        line.count("|") == 4 and not set("<[$`*") - {"$"} & set(line) for line in shown
    )
    labels = (folder / "logs" / "products.tsv").read_text()
    assert (
        not RAW.search(labels)
        and len(labels.splitlines()) == 13
        and len({line.count("\t") for line in labels.splitlines()}) == 1
    )
