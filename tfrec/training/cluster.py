"""Training on parameter servers: the workers' steps are not in step.

The chief cuts an epoch into turns of consecutive steps and hands them out (tf.distribute's
ClusterCoordinator). A worker makes the batches of its turn, which are a function of (seed, epoch,
step), reads the rows that it needs from the servers, and applies its gradient there, with the
weights as they are then: nobody waits for another (Recht et al., "Hogwild", 2011). A turn whose
worker dies is done again by another one, so each row is visited at least once an epoch, and exactly
once where nobody dies.
"""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfrec.losses import Loss
from tfrec.models.base import Recommender
from tfrec.optimizers import Optimizer
from tfrec.training import strategies
from tfrec.training.loop import Trainer

# of each worker in an inner loop: few large ones would let the fast workers wait for the slow
TURNS = 4


class ClusterTrainer(Trainer):
    """A Trainer whose variables live on parameter servers, large tables in shards; make it in the
    strategy's scope.

    steps_per_epoch: turns do not reach from one epoch into the next. here, loss_here: the chief's
    own copies of model and loss, which `fetch` brings up to date; evaluation and export read them.
    """

    def __init__(
        self,
        strategy: tf.distribute.ParameterServerStrategy,
        model: Recommender,
        loss: Loss,
        here: Recommender,
        loss_here: Loss,
        optimizer: Optimizer,
        batch_size: int,
        jit_compile: bool,
        steps_per_epoch: int,
        l2: float = 0.0,
    ) -> None:
        super().__init__(strategy, model, loss, optimizer, batch_size, jit_compile, l2)
        self.here, self.loss_here, self.steps_per_epoch = here, loss_here, steps_per_epoch
        self.visited = tf.Variable(0, dtype=tf.int64, name="visited")
        self.workers = strategies.num_workers()
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    def variables(self) -> dict[str, Any]:
        slots: dict[str, Any] = {}
        for path, shards in self.shards.items():
            for slot in self.optimizer.state[shards[0]]:
                parts = [self.optimizer.state[shard][slot] for shard in shards]
                slots[f"optimizer/{path}/{slot}"] = (
                    parts[0] if len(parts) == 1 else type(self.weights[path])(parts, name=slot)
                )
        return self._of_model() | slots | {"step": self.step}

    def kept(self) -> dict[str, tf.Variable]:
        of_model = {
            f"model/{path}": variable for path, variable in self.here.named_weights().items()
        }
        return of_model | {
            f"loss/{path}": variable for path, variable in self.loss_here.named_weights().items()
        }

    def fetch(self) -> dict[str, tf.Variable]:
        there, here = self._of_model(), self.kept()
        for path, variable in here.items():
            variable.assign(tf.convert_to_tensor(there[path]))
        return {path: here[f"model/{path}"] for path in self.shards if f"model/{path}" in here}

    def rows_visited(self, rows: int) -> int:
        """Those of a worker that died count twice."""
        count = int(self.visited.numpy())
        self.visited.assign(0)
        return count

    def iterate(self, batches: Callable[..., tf.data.Dataset], start: tuple[int, int]) -> Any:
        """Nothing but the position, which `train` knows.

        Its turns make the batches, so `batches` must do so in a graph.
        """
        self.batches = batches
        return None

    def trace(self, iterator: Any) -> None:
        with self.strategy.scope():
            self._turn.get_concrete_function(*(tf.constant(0, tf.int64) for _ in range(4)))

    def train(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count, done = int(steps), self.steps_done()
        epoch, step = divmod(done, self.steps_per_epoch)
        assert step + count <= self.steps_per_epoch, "the loop stops at an epoch's end"
        turn = -(-count // (TURNS * self.workers))
        results = []
        for first in range(0, count, turn):
            numbers = epoch, step + first, min(turn, count - first), done + first
            results.append(
                self.coordinator.schedule(
                    self._turn, args=tuple(tf.constant(number, tf.int64) for number in numbers)
                )
            )
        self.coordinator.join()
        self.step.assign_add(count)
        losses, norms = zip(*self.coordinator.fetch(results))
        return tf.add_n([tf.constant(loss) for loss in losses]) / count, tf.constant(norms[-1])

    @tf.function
    def _turn(
        self, epoch: tf.Tensor, first: tf.Tensor, steps: tf.Tensor, done: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """On a worker.

        The steps first .. first + steps - 1 of the epoch; returns the sum of their losses and the
        last gradient's norm.
        """
        iterator: Iterator = iter(self.batches((epoch, first), (0, 1, 1)))
        total, norm = 0.0, 0.0
        for i in tf.range(steps):
            batch, y, weight = next(iterator)
            share, gradients = self._gradients_fn(batch, y, weight)
            loss, rows = tf.unstack(share)
            norm = self.optimizer.apply(
                self.strategy, gradients, self.trainable, done + i, want_norm=i == steps - 1
            )
            self.visited.assign_add(tf.cast(rows, tf.int64))
            total += loss
        return total, norm
