"""Functions that TensorFlow compiles."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

Function = TypeVar("Function", bound=Callable)


def plain(function: Function) -> Function:
    """Keeps AutoGraph from rewriting a method without control flow over tensors.

    Rewriting all of a step's code took a tenth of the conformance suite's time.
    """
    return tf.autograph.experimental.do_not_convert(function)


def compiled(function: Callable, signature: list[tf.TensorSpec] | None = None) -> Any:
    """tf.function of a method that each object traces once.

    TensorFlow takes several objects of a class for one function that is traced again and again,
    and warns of it: in a notebook with every call of `tfrec.evaluate`.
    """
    made = tf.function(function, signature, reduce_retracing=signature is None)
    made._omit_frequent_tracing_warning = True  # there is no public way
    return made
