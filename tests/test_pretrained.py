import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.worlds import write_1m
from tfrec.errors import UsageError
from tfrec.experiments import loading, parts, pretrained, run
from tfrec.experiments.config import make_config
from tfrec.experiments.run import Run

MLP = {"model": "ncf", "embedding_dim": 6, "mlp_layers": (5, 3)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(settings that all share, the folder of a run of the GMF, that of a run of the MLP)."""
    folder = tmp_path_factory.mktemp("world")
    shared = {
        "dataset": "1m",
        "data_dir": str(write_1m(folder, rows=400)),
        "task": "ranking",
        "split": "random",
        "epochs": 2,
        "cold_embeddings": "keep",
        "refit": "none",
    }
    for name, settings in {
        "gmf": {"model": "mf", "embedding_dim": 4, "similarity": "dot"},
        "mlp": MLP | {"cosine": False},
    }.items():
        run.train(
            make_config(
                **shared, **settings, learning_rate=0.05, batch_size=64, workdir=str(folder / name)
            )
        )
    return shared, folder / "gmf", folder / "mlp"


def test_neumf_starts_at_half_of_each_runs_logits(runs):
    shared, *folders = runs
    config = make_config(**shared, **MLP, gmf_dim=4, pretrained=tuple(map(str, folders)))
    split, config = loading.load(config)
    model = parts.make_model(split.train, config)
    pretrained.start(model, split, config)
    batch = {"user": tf.range(split.catalog.num_users)}
    gmf, mlp = (Run.open(folder).model.score_all(batch).numpy() for folder in folders)
    np.testing.assert_allclose(model.score_all(batch), (gmf + mlp) / 2, rtol=1e-4, atol=1e-5)
    assert np.std(gmf) > 0.01 < np.std(mlp)


def test_a_run_is_opened_without_the_runs_that_it_started_from(runs, tmp_path):
    shared, *folders = runs
    sources = tuple(str(tmp_path / folder.name) for folder in folders)
    for folder, copy in zip(folders, sources):
        shutil.copytree(folder, copy)
    settings = MLP | {"gmf_dim": 4, "pretrained": sources, "refit": "all"}
    made = run.train(make_config(**(shared | settings), workdir=str(tmp_path / "run")))
    assert {"refit", "refit_all"} <= made.record.keys()
    for source in sources:
        shutil.rmtree(source)
    opened = Run.open(tmp_path / "run").model.named_weights()
    for path, weight in made.model.named_weights().items():
        np.testing.assert_array_equal(opened[path], weight, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gmf_dim": 5},
            r"the run in .*gmf has --embedding_dim=4, and --embedding_dim=5 is needed\.",
        ),
        (
            {"mlp_layers": (5,)},
            r"the run in .*mlp has --mlp_layers=5,3, and --mlp_layers=5 is needed\.",
        ),
        ({"biases": False}, r"the run in .*gmf has --biases, and --nobiases is needed\."),
        ({"split_seed": 1}, r"the run in .*gmf is of other data, or of other rows of them\."),
        ({"swapped": True}, r"the run in .*mlp has --model=ncf, and --model=mf is needed\."),
        ({"nowhere": True}, r"there is no run in this folder\."),
    ],
)
def test_another_run_is_refused_in_one_line(runs, changes, message):
    shared, *folders = runs
    changes = dict(changes)
    folders = folders[::-1] if changes.pop("swapped", False) else folders
    folders = [folders[0] / "nowhere"] * 2 if changes.pop("nowhere", False) else folders
    config = make_config(
        **(shared | MLP | {"gmf_dim": 4} | changes), pretrained=tuple(map(str, folders))
    )
    split, config = loading.load(config)
    with pytest.raises(UsageError, match=message) as caught:
        pretrained.start(parts.make_model(split.train, config), split, config)
    assert "\n" not in str(caught.value)
