"""numpy inside of a graph on this machine, where TensorFlow has no operation that is as fast."""

import atexit
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

IDLE = 0.1  # seconds: longer than the pipeline takes from one call to the next


class _Calls:
    lock, made, running = threading.Lock(), 0, 0


def in_numpy(
    function: Callable[..., list[np.ndarray]],
    tensors: list[tf.Tensor],
    shapes: list[tf.TensorShape],
) -> list[tf.Tensor]:
    """Returns what a pure function of numpy makes of tensors.

    Args:
        function: Arrays -> arrays int32.
        tensors: What it is given.
        shapes: Of what it returns.
    """

    def counted(*arrays: np.ndarray) -> list[np.ndarray]:
        with _Calls.lock:
            _Calls.made += 1
            _Calls.running += 1
        try:
            return function(*arrays)
        finally:
            with _Calls.lock:
                _Calls.running -= 1

    found = tf.numpy_function(counted, tensors, [tf.int32] * len(shapes), stateful=False)
    return [tf.ensure_shape(each, shape) for each, shape in zip(found, shapes)]


@atexit.register
def wait_until_idle() -> None:
    """Waits until nothing calls numpy any more: after the last batch was taken the pipeline runs
    ahead until it is full. Python ends by holding its lock, for which a thread of
    TensorFlow's that is about to call numpy would wait without end, and Python for that thread.
    """
    seen = 0
    while seen != _Calls.made or _Calls.running:
        seen = _Calls.made
        time.sleep(IDLE)
