import numpy as np
import pytest
import tensorflow as tf

from tfrec.optimizers import machines
from tfrec.optimizers.messages import packed, unpacked
from tfrec.training import strategies


@pytest.mark.parametrize("most", (100_000, 3))  # 3: the matrix is summed by itself
def test_the_replicas_values_cross_in_one_message(most, monkeypatch):
    monkeypatch.setattr(machines, "MOST_IN_MESSAGE", most)
    strategy, ids = strategies.make("mirrored", 2), np.array([5, -1, 2**31 - 1], np.int32)
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    sent: list[int] = []

    def of_replica(number: tf.Tensor) -> tuple:
        by = tf.cast(number + 1, tf.float32)
        slices = tf.IndexedSlices(by * rows, tf.constant(ids))
        weight = tf.IndexedSlices(by * rows[:, 0], tf.constant(ids, tf.int64))
        return by, {"table": slices, "kernel": by * rows, "bias": by * rows[0]}, {"table": weight}

    def gather(message: tf.distribute.DistributedValues, axis: int) -> tf.Tensor:
        sent.append(strategy.experimental_local_results(message)[0].shape[0])
        return type(strategy).gather(strategy, message, axis)

    monkeypatch.setattr(strategy, "gather", gather)

    @tf.function
    def summed() -> tuple:
        numbers = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(context.replica_id_in_sync_group)
        )
        return machines.summed(strategy, of_replica, (numbers,))

    loss, gradients, weights = summed()
    assert float(loss) == 3
    np.testing.assert_allclose(gradients["kernel"], 3 * rows, rtol=1e-6)
    np.testing.assert_allclose(gradients["bias"], 3 * rows[0], rtol=1e-6)
    for slices, one in ((gradients["table"], rows), (weights["table"], rows[:, 0])):
        np.testing.assert_array_equal(slices.indices, np.tile(ids, 2))
        np.testing.assert_array_equal(slices.values, np.concatenate([one, 2 * one]))
    assert weights["table"].indices.dtype == tf.int64
    assert sent == [1 + (3 + 12) + (12 if most > 3 else 0) + (4 if most > 3 else 0) + (3 + 3)]


@pytest.mark.parametrize("known", (True, False))
def test_a_message_holds_what_was_packed(known):
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 3)).astype(np.float32)
    ids = random.integers(-(2**31), 2**31, 5).astype(np.int32)
    rows = [tf.TensorSpec([5 if known else None, *shape]) for shape in ((3,), ())]
    index = tf.TensorSpec([5 if known else None], tf.int32)

    @tf.function(input_signature=[*rows, index, tf.TensorSpec([]), tf.TensorSpec([2, 2])])
    def through(table, weight, ids, loss, kernel):  # type: ignore[no-untyped-def]
        sent = [
            loss,
            tf.IndexedSlices(table, ids),
            kernel,
            tf.IndexedSlices(weight[:2], ids[:2]),
        ]
        return unpacked(packed(sent), sent)

    for count in (5,) if known else (5, 0):
        loss, table, kernel, weight = through(
            values[:count], values[:count, 0], ids[:count], 2.0, values[:2, :2]
        )
        assert float(loss) == 2
        np.testing.assert_array_equal(kernel, values[:2, :2])
        np.testing.assert_array_equal(table.indices, ids[:count])
        np.testing.assert_array_equal(table.values, values[:count])
        np.testing.assert_array_equal(weight.values, values[: min(count, 2), 0])
        np.testing.assert_array_equal(weight.indices, ids[: min(count, 2)])
