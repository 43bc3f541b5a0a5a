"""Functions that TensorFlow compiles."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(
    function: Callable,
    signature: list[tf.TensorSpec] | None = None,
    jit_compile: bool | None = None,
) -> Any:
    """tf.function of a method that each object traces once, without AutoGraph.

    AutoGraph rewrites the source of all that a function calls, which takes longer than tracing it;
    Keras keeps it from models anyway. So control flow over tensors is tf.cond and tf.while_loop.

    TensorFlow takes several objects of a class for one function that is traced again and again,
    and warns of it: in a notebook with every call of `tfrec.evaluate`.
    """
    # strategy.run would rewrite what it calls, whatever `autograph` says here
    plain = tf.autograph.experimental.do_not_convert(function)
    made = tf.function(
        plain,
        signature,
        autograph=False,
        jit_compile=jit_compile,
        reduce_retracing=signature is None,
    )
    made._omit_frequent_tracing_warning = True  # there is no public way
    return made
