import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.data.negatives import Negatives
from tfrec.errors import Preempted, UsageError
from tfrec.layers import lookup
from tfrec.training import strategies


@pytest.mark.parametrize(
    "name, kind, replicas",
    (("one_device", "OneDeviceStrategy", 1), ("mirrored", "MirroredStrategy", 2)),
)
def test_the_strategy_of_the_settings(name, kind, replicas):
    strategy = strategies.make(name, 2 if name == "mirrored" else 0)
    assert (type(strategy).__name__, strategy.num_replicas_in_sync) == (kind, replicas)


def test_default_is_tensorflows_own():
    assert strategies.make("default") is tf.distribute.get_strategy()


@pytest.mark.parametrize("batch_size, near", ((1, 2), (3, 2), (1023, 1022)))
def test_a_batch_that_cannot_be_divided_ends_in_one_line(batch_size, near):
    two = strategies.make("mirrored", 2)
    with pytest.raises(UsageError) as error:
        strategies.check(two, batch_size, jit_compile=False)
    assert (
        str(error.value)
        == f"batch_size={batch_size} cannot be divided among 2 replicas. Take {near}."
    )
    strategies.check(two, near, jit_compile=False)
    strategies.check(strategies.make("one_device"), batch_size, jit_compile=False)


def test_too_late_for_other_virtual_devices_ends_in_one_line():
    with pytest.raises(
        UsageError,
        match=r"^--virtual_devices=3: TensorFlow has its devices already\. Start a new process\.$",
    ):
        strategies.make("mirrored", 3)


def training_batches(
    strategy: tf.distribute.Strategy, task: str, steps: int, batch_size: int = 8
) -> list[list[tuple]]:
    """For each step, each replica's (batch, y, weight)."""
    rows = make_dataset(user_features=2).interactions.take(np.arange(27))
    negatives = Negatives(3) if task == "ranking" else None
    batches = rows.batches(batch_size, 5, negatives)
    iterator = strategies.iterate(strategy, lambda slices: batches.dataset(slices=slices))
    found = [
        [tf.nest.map_structure(strategy.experimental_local_results, next(iterator))]
        for _ in range(steps)
    ]
    return [
        [pick(element, replica) for replica in range(strategy.num_replicas_in_sync)]
        for (element,) in found
    ]


def pick(element: tuple, replica: int) -> tuple:
    batch, y, weight = element
    return (
        {name: values[replica].numpy() for name, values in batch.items()},
        y[replica].numpy(),
        weight[replica].numpy(),
    )


def test_the_graph_knows_the_shapes_of_a_replicas_batch():
    """The optimiser decides by them which form a table takes."""
    strategy, shapes = strategies.make("mirrored", 2), []

    rows = make_dataset().interactions.take(np.arange(27))
    made = rows.batches(8, 5, Negatives(shared=7))

    def batches(slices):
        return made.dataset(slices=slices)

    @tf.function
    def loop(iterator):
        for _ in tf.range(2):
            batch, _, weight = next(iterator)
            strategy.run(
                lambda *one: shapes.append([tuple(values.shape) for values in one]),
                (batch["user"], batch["negatives"], weight),
            )

    loop(strategies.iterate(strategy, batches))
    assert shapes == [[(4,), (7,), (4,)]] * 2


@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_the_replicas_slices_in_order_are_the_global_batch(task):
    """Over more than one epoch, with a short last batch (27 rows in batches of 8)."""
    one = training_batches(tf.distribute.get_strategy(), task, steps=9)
    two = training_batches(strategies.make("mirrored", 2), task, steps=9)
    assert any((weight == 0).any() for ((_, _, weight),) in one)
    for ((batch, y, weight),), (first, second) in zip(one, two):
        assert len(first[1]) == len(second[1]) == 4
        np.testing.assert_array_equal(y, np.concatenate([first[1], second[1]]))
        np.testing.assert_array_equal(weight, np.concatenate([first[2], second[2]]))
        for name, column in batch.items():
            np.testing.assert_array_equal(
                column, np.concatenate([first[0][name], second[0][name]]), err_msg=name
            )


def test_iterate_asks_for_the_slices_of_all_replicas():
    asked = []

    def batches(slices):
        asked.append(slices)
        return tf.data.Dataset.range(4)

    strategy = strategies.make("mirrored", 2)
    iterator = strategies.iterate(strategy, batches)
    assert asked == [(0, 2, 2)]
    values = [
        [int(part) for part in strategy.experimental_local_results(next(iterator))]
        for _ in range(2)
    ]
    assert values == [[0, 1], [2, 3]]
    strategies.iterate(tf.distribute.get_strategy(), batches)
    assert asked[1:] == [(0, 1, 1)]


def test_a_lookup_under_mirrored_reads_its_rows_alone():
    strategy = strategies.make("mirrored", 2)
    with strategy.scope():
        table = tf.Variable(tf.zeros([100, 3]))

    @tf.function
    def read():
        return strategy.run(lookup, (table, tf.constant([1, 2])))

    kinds = {operation.type for operation in read.get_concrete_function().graph.get_operations()}
    assert "ResourceGather" in kinds
    assert not kinds & {"GatherV2", "ReadVariableOp"}


# Clusters: what can be said without one; tests/end_to_end/test_cluster.py has real ones


WORKERS = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": %s}'
SERVERS = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, "task": %s}'


@pytest.mark.parametrize(
    "said, strategy, words",
    (
        (
            "",
            "multi_worker",
            "--strategy=multi_worker: TF_CONFIG is not set. Cluster managers set it",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}}',
            "parameter_server",
            "--strategy=parameter_server: TF_CONFIG has no chief.",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}}',
            "parameter_server",
            "--strategy=parameter_server: TF_CONFIG has no ps.",
        ),
        ("{", "multi_worker", "TF_CONFIG is not {"),
        ("[]", "multi_worker", "TF_CONFIG is not {"),
        ('{"task": {"index": "first"}}', "multi_worker", "TF_CONFIG is not {"),
        ('{"task": {"index": null}}', "multi_worker", "TF_CONFIG is not {"),
        (
            WORKERS % '{"type": "evaluator"}',
            "multi_worker",
            "--strategy=multi_worker: TF_CONFIG's task is evaluator 0. It must be a worker",
        ),
        (
            WORKERS % '{"type": "worker", "index": 2}',
            "multi_worker",
            "--strategy=multi_worker: TF_CONFIG's task is worker 2. It must be a",
        ),
        (
            SERVERS % "{}",
            "parameter_server",
            "--strategy=parameter_server: TF_CONFIG's task is  0. It must be a chief or worker or "
            "ps",
        ),
        (
            SERVERS % '{"type": "ps", "index": 1}',
            "parameter_server",
            "--strategy=parameter_server: TF_CONFIG's task is ps 1. It must be a",
        ),
    ),
)
def test_a_cluster_that_is_none_ends_in_one_line(said, strategy, words, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", said)
    for begin in (strategies.run_server, strategies.make):
        if begin is strategies.make or strategy == "parameter_server":
            with pytest.raises(UsageError) as error:
                begin(strategy)
            assert str(error.value).startswith(words) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kinds, task, strategy, chief",
    (
        (("worker",), ("worker", 0), "multi_worker", True),
        (("worker",), ("worker", 1), "multi_worker", False),
        (("chief", "worker"), ("worker", 0), "multi_worker", False),
        (("chief", "worker"), ("chief", 0), "multi_worker", True),
        (("chief", "worker", "ps"), ("chief", 0), "parameter_server", True),
        (("worker",), ("worker", 1), "default", True),
    ),
)
def test_one_process_of_a_cluster_speaks(kinds, task, strategy, chief, monkeypatch):
    cluster = {kind: ["a:1", "b:1"] for kind in kinds}
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})
    )
    assert strategies.is_chief(strategy) == chief


def test_who_trains_alone_reads_all_rows(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")  # and does not ask for a cluster
    assert strategies.input_shards(tf.distribute.get_strategy()) == 1


def test_alone_the_total_is_ones_own():
    assert strategies.all_reduce_sum(tf.distribute.get_strategy(), 2.5) == 2.5


def test_an_error_of_ones_own_is_no_lost_process():
    with pytest.raises(tf.errors.UnavailableError), strategies.raise_on_lost_worker("default"):
        raise tf.errors.UnavailableError(None, None, "a file system")


@pytest.mark.parametrize(
    "said, reason",
    (
        ("Connection reset by peer\n\t [[{{node all}}]]", "Connection reset by peer"),
        (
            "Graph execution error:\n\nDetected at node x defined at\n<stack traces "
            "unavailable>\nSocket closed.\nmore",
            "Socket closed",
        ),
        (
            "Graph execution error:\n\nDetected at node x defined at (most recent call last):\n  "
            'File "a.py", line 3\n\nReset.',
            "Reset",
        ),
        ("", "UnavailableError"),
    ),
)
def test_another_process_that_is_lost_is_told_in_one_line(said, reason):
    with pytest.raises(Preempted) as error, strategies.raise_on_lost_worker("multi_worker"):
        raise tf.errors.UnavailableError(None, None, said)
    assert str(error.value) == f"another process of the cluster is lost ({reason})"


def test_a_server_goes_when_told():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    said = {
        "cluster": {"chief": [address], "worker": [address], "ps": [address]},
        "task": {"type": "ps", "index": 0},
    }
    serves = """
import tfrec, tfrec.system.stopping
from tfrec.training import strategies
Server = strategies.tf.distribute.Server
class Chatty(Server):
    def join(self):
        print('serving', flush=True)
        super().join()
strategies.tf.distribute.Server = Chatty
with tfrec.system.stopping.immediate():
    strategies.run_server('parameter_server')
"""
    process = subprocess.Popen(
        [sys.executable, "-c", serves],
        env=os.environ | {"TF_CONFIG": json.dumps(said)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "serving\n"
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM
