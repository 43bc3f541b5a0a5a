"""Training on parameter servers: the workers' steps are not in step.

The chief cuts an epoch into units of consecutive steps and hands them out (tf.distribute's
ClusterCoordinator). A worker makes the batches of its unit, which are a function of (seed, epoch,
step), reads the rows that it needs from the servers, and applies its gradient there, with the
weights as they are then: nobody waits for another (Recht et al., "Hogwild", 2011). A unit whose
worker dies is done again by another one, so each row is visited at least once an epoch, and exactly
once where nobody dies.
"""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfrec.data.batches import steps_per_epoch
from tfrec.losses import Loss
from tfrec.models.base import Recommender
from tfrec.optimizers import Optimizer
from tfrec.system.graph import compiled
from tfrec.training import strategies
from tfrec.training.settings import TrainerSettings
from tfrec.training.steps import Steps, attach

# units of work of each worker in an inner loop: with few large ones the fast workers would wait
# for the slow
UNITS = 4


class ClusterSteps(Steps):
    """Steps whose variables live on parameter servers, large tables in shards; make it in the
    strategy's scope.

    Model and loss are made there anew, from their classes, data and settings. `pull` brings the
    Trainer's own up to date; evaluation and export read these.
    """

    def __init__(
        self,
        strategy: tf.distribute.ParameterServerStrategy,
        model: Recommender,
        loss: Loss,
        optimizer: Optimizer,
        settings: TrainerSettings,
    ) -> None:
        remote = type(model).from_data(model.data, model.task, **vars(model.settings))
        local = model.named_weights()
        for path, weight in remote.named_weights().items():
            weight.assign(tf.convert_to_tensor(local[path]))
        remote_loss = type(loss)(**vars(loss.settings))
        attach(remote, remote_loss, settings.l2 or 0.0)
        super().__init__(strategy, remote, remote_loss, optimizer, settings)
        self.local, self.local_loss = model, loss
        self.steps_per_epoch = steps_per_epoch(len(model.data), self.batch_size)
        self.visited = tf.Variable(0, dtype=tf.int64, name="visited")
        self.workers = strategies.num_workers()
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self._work_graph = compiled(self._work)

    def variables(self) -> dict[str, Any]:
        slots: dict[str, Any] = {}
        for path, shards in self.shards.items():
            for slot in self.optimizer.state[shards[0]]:
                parts = [self.optimizer.state[shard][slot] for shard in shards]
                slots[f"optimizer/{path}/{slot}"] = (
                    parts[0] if len(parts) == 1 else type(self.weights[path])(parts, name=slot)
                )
        return self._of_model() | slots | {"step": self.step}

    def exported(self) -> dict[str, tf.Variable]:
        of_model = {
            f"model/{path}": variable for path, variable in self.local.named_weights().items()
        }
        return of_model | {
            f"loss/{path}": variable for path, variable in self.local_loss.named_weights().items()
        }

    def pull(self) -> dict[str, tf.Variable]:
        remote, local = self._of_model(), self.exported()
        for path, variable in local.items():
            variable.assign(tf.convert_to_tensor(remote[path]))
        return {path: local[f"model/{path}"] for path in self.shards if f"model/{path}" in local}

    def rows_visited(self, rows: int) -> int:
        """Those of a worker that died count twice."""
        count = int(self.visited.numpy())
        self.visited.assign(0)
        return count

    def iterate(self, batches: Callable[..., tf.data.Dataset], start: tuple[int, int]) -> Any:
        """Nothing but the position, which `run` knows.

        Its units of work make the batches, so `batches` must do so in a graph.
        """
        self.batches = batches
        return None

    def trace(self, iterator: Any) -> None:
        with self.strategy.scope():
            self._work_graph.get_concrete_function(*(tf.constant(0, tf.int64) for _ in range(4)))

    def run(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count, done = int(steps), self.steps_done()
        epoch, step = divmod(done, self.steps_per_epoch)
        assert step + count <= self.steps_per_epoch, "the loop stops at an epoch's end"
        unit = -(-count // (UNITS * self.workers))
        results = []
        for first in range(0, count, unit):
            numbers = epoch, step + first, min(unit, count - first), done + first
            results.append(
                self.coordinator.schedule(
                    self._work_graph,
                    args=tuple(tf.constant(number, tf.int64) for number in numbers),
                )
            )
        self.coordinator.join()
        self.step.assign_add(count)
        losses, norms = zip(*self.coordinator.fetch(results))
        return tf.add_n([tf.constant(loss) for loss in losses]) / count, tf.constant(norms[-1])

    def _work(
        self, epoch: tf.Tensor, first: tf.Tensor, steps: tf.Tensor, done: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes some steps of an epoch on a worker.

        Returns the sum of their losses and the last gradient's norm; the steps are first to first +
        steps - 1.
        """
        iterator: Iterator = iter(self.batches((epoch, first), (0, 1, 1)))

        def step(i: tf.Tensor, total: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, ...]:
            batch, y, weight = next(iterator)
            loss, gradients = self._gradients_fn(batch, y, weight)
            norm = self.optimizer.apply(
                self.strategy, gradients, self.trainable, done + i, want_norm=i == steps - 1
            )
            self.visited.assign_add(tf.math.count_nonzero(weight))
            return i + 1, total + loss, norm

        start = tf.constant(0, tf.int64), tf.constant(0.0), tf.constant(0.0)
        _, total, norm = tf.while_loop(lambda i, *_: i < steps, step, start)
        return total, norm
