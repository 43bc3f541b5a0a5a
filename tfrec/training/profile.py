"""TensorBoard's profile of some steps."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf


class Profile:
    """TensorBoard's profile of the run's steps first..last, counted from 1; of none where `steps`
    is empty.

    Use it as a context manager: a profile that the run's end cuts short is written, be the end an
    error. Of the processes of a cluster the chief alone writes one; under multi_worker the others
    cut their steps as it does, for they train in step.
    """

    def __init__(self, folder: Path, steps: tuple[int, ...], is_chief: bool = True) -> None:
        self.folder, self.running, self.done = folder, False, not steps or not is_chief
        self.first, self.last = steps or (0, 0)

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        if self.running:
            self._stop()
        elif not self.done:
            print(
                f"--profile_steps={self.first},{self.last}: this process did not come by these "
                "steps, so there is no profile."
            )

    def train(
        self,
        train: Callable[..., tuple[tf.Tensor, tf.Tensor]],
        iterator: Iterator,
        done: int,
        count: int,
    ) -> tuple[float, float]:
        """train(iterator, steps), after `done` steps.

        In several parts where the profile begins or ends within the `count` steps.
        """
        ends = [end for end in (self.first - 1, self.last) if done < end < done + count] + [
            done + count
        ]
        mean, norm = 0.0, 0.0
        for end in ends:
            if self.first <= done + 1 <= self.last and not self.running and not self.done:
                tf.profiler.experimental.start(str(self.folder))
                self.running = True
            loss, norm = (
                float(figure) for figure in train(iterator, tf.constant(end - done, tf.int64))
            )
            mean += loss * ((end - done) / count)
            if (
                self.running and end == self.last
            ):  # now, not before the next step: validation may come first
                self._stop()
            if not math.isfinite(loss):
                break
            done = end
        return mean, norm

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self.running, self.done = False, True
