"""Where the replicas are, how the global batch is cut among them, and what the processes of a
cluster tell each other.

A cluster is what TF_CONFIG says, as every cluster manager sets it: {"cluster": {"worker":
["host:port", ...], ...}, "task": {"type": "worker", "index": 0}}. Under multi_worker all its
processes run the same command, in step; under parameter_server the chief runs it, and the others
serve. The chief, or worker 0 where there is none, alone writes and speaks.
"""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager.context import (
    context as runtime,
)  # report_error_to_cluster has no public name

from tfrec.errors import Preempted, TfrecError, UsageError, tensorflow_lines
from tfrec.system.machine import limit_intra_op_threads

Slices = tuple[int, int, int]
CLUSTER = ("multi_worker", "parameter_server")
FAILED = "tfrec: failed: "  # what opens the message that the others are sent
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
SHARD_FROM = 256 * 1024  # bytes: a smaller table stays on one parameter server


def make(name: str, virtual_devices: int = 0) -> tf.distribute.Strategy:
    """Returns the strategy of that name; call it before TensorFlow touches a device. On two cores
    it also sets TensorFlow's threads.

    Args:
        name: default, one_device, mirrored, multi_worker or parameter_server.
        virtual_devices: Into how many devices the CPU is split; 0: it is left whole.

    Raises:
        UsageError: It is too late for virtual devices, or TF_CONFIG describes no cluster for the
            strategy.
    """
    limit_intra_op_threads()
    if virtual_devices:
        _split_cpu(virtual_devices)
    return _in_cluster(name) if name in CLUSTER else _on_this_machine(name)


def check(strategy: tf.distribute.Strategy, batch_size: int, jit_compile: bool) -> None:
    """Raises UsageError where the batch cannot be cut evenly among the replicas, or XLA cannot
    compile for them.
    """
    replicas = strategy.num_replicas_in_sync
    if jit_compile and replicas > 1 and not tf.config.list_logical_devices("GPU"):
        raise UsageError(
            f"jit_compile: XLA cannot compile for {replicas} CPU devices. Leave it out, or take "
            "one device."
        )
    if batch_size % replicas:
        near = batch_size // replicas * replicas or replicas
        raise UsageError(
            f"batch_size={batch_size} cannot be divided among {replicas} replicas. Take {near}."
        )


def _on_this_machine(name: str) -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    return {
        "default": tf.distribute.get_strategy,
        "one_device": lambda: tf.distribute.OneDeviceStrategy(devices[0]),
        # on CPUs the default is made of collectives, whose keys clash when a process makes a second
        # strategy
        "mirrored": lambda: tf.distribute.MirroredStrategy(
            devices, None if gpus else tf.distribute.ReductionToOneDevice()
        ),
    }[name]()


def _in_cluster(name: str) -> tf.distribute.Strategy:
    kinds, _, _ = _cluster_for(name)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    by_size = tf.distribute.experimental.partitioners.MinSizePartitioner(
        SHARD_FROM, len(kinds["ps"])
    )
    return tf.distribute.ParameterServerStrategy(resolver, by_size)


def _cluster() -> tuple[dict[str, list[str]], str, int]:
    """Returns what TF_CONFIG says: the addresses of each kind of task, and this process's kind and
    index.
    """
    try:
        said = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task = said.get("task", {})
        return said.get("cluster", {}), task.get("type", ""), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        raise UsageError(
            'TF_CONFIG is not {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
            '"worker", "index": 0}}.'
        ) from None


def _cluster_for(name: str) -> tuple[dict[str, list[str]], str, int]:
    """Returns the cluster of _cluster. Raises UsageError where it is none for the strategy, or this
    process has no place in it.
    """
    kinds, kind, index = _cluster()
    wanted = ("worker",) if name == "multi_worker" else ("chief", "worker", "ps")
    missing = [each for each in wanted if not kinds.get(each)]
    if missing:
        has = f"has no {missing[0]}" if kinds else "is not set"
        raise UsageError(
            f"--strategy={name}: TF_CONFIG {has}. Cluster managers set it; on this machine: "
            "python scripts/launch.py --help"
        )
    known = [each for each in kinds if each in (*wanted, "chief")]
    if kind not in known or not 0 <= index < len(kinds[kind]):
        raise UsageError(
            f"--strategy={name}: TF_CONFIG's task is {kind} {index}. It must be a "
            f"{' or '.join(known)} of its cluster."
        )
    return kinds, kind, index


def num_workers() -> int:
    """Of the cluster, a chief not counted."""
    return len(_cluster()[0].get("worker", ()))


def input_shards(strategy: tf.distribute.Strategy) -> int:
    """Into how many parts, read by a machine each, an epoch's rows on disk are cut before batches
    are made of them (data/disk.py).
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    kinds = _cluster()[0]
    return sum(len(kinds.get(kind, ())) for kind in ("chief", "worker"))


def is_chief(strategy: tf.distribute.Strategy | str) -> bool:
    """Returns whether this process logs and writes files. Without a cluster it does.

    Args:
        strategy: It, or its name.
    """
    of_cluster = (
        strategy in CLUSTER
        if isinstance(strategy, str)
        else isinstance(
            strategy,
            tf.distribute.MultiWorkerMirroredStrategy | tf.distribute.ParameterServerStrategy,
        )
    )
    if not of_cluster:
        return True
    kinds, kind, index = _cluster()
    return kind == "chief" or (kind == "worker" and index == 0 and not kinds.get("chief"))


def run_server(name: str) -> None:
    """Does this process's part, without end, if it is a worker or a parameter server that the chief
    commands; else returns at once.
    """
    if name != "parameter_server":
        return
    kinds, kind, index = _cluster_for(name)
    if kind != "chief":
        limit_intra_op_threads()
        signal.signal(
            signal.SIGTERM, signal.SIG_DFL
        )  # there is nothing to save, and a Python handler would wait for the end of join
        tf.distribute.Server(
            tf.train.ClusterSpec(kinds), job_name=kind, task_index=index, protocol="grpc"
        ).join()


def has_servers(strategy: tf.distribute.Strategy) -> bool:
    """Do the variables live on parameter servers?"""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def in_one_process(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether all devices of the strategy are this process's."""
    return not between_machines(strategy) and not has_servers(strategy)


def between_machines(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the replicas are on several machines, in step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def all_reduce_sum(strategy: tf.distribute.Strategy, value: float) -> float:
    """Returns the sum of the workers' values.

    Each of them must ask. In a process that trains alone: its own.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return value
    replicas_here = len(strategy.extended.worker_devices)

    def of_replica() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group % replicas_here, 0)
        return context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.where(is_first, tf.constant(value, tf.float64), 0.0)
        )

    return float(strategy.experimental_local_results(strategy.run(of_replica))[0])


@contextlib.contextmanager
def raise_on_lost_worker(name: str) -> Iterator[None]:
    """Tells the other processes of the cluster where this one fails, as they would wait for it for
    ever.

    Raises:
        TfrecError: another process has failed, and told why.
        Preempted: another process is lost.
    """
    try:
        yield
    except Preempted:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if name not in CLUSTER:
            raise
        if isinstance(error, tf.errors.OpError) and (
            said := re.search(f"{FAILED}(.*)", str(error))
        ):
            raise TfrecError(f"another process of the cluster failed: {said[1]}") from None
        if isinstance(error, LOST):
            raise Preempted(f"another process of the cluster is lost ({_reason(error)})") from None
        if name == "multi_worker":  # servers are commanded, and wait for no step of the chief's
            _tell(error)
        raise


def _tell(error: BaseException) -> None:
    """Ends what the other processes wait for, with the first line of the error."""
    _, kind, index = _cluster()
    why = next(iter(str(error).splitlines()), "") or type(error).__name__
    with contextlib.suppress(ValueError, tf.errors.OpError):  # not connected yet, or nobody is left
        runtime().report_error_to_cluster(
            tf.errors.FAILED_PRECONDITION, f"{FAILED}{kind} {index}: {why[:200]}"
        )


def _reason(error: tf.errors.OpError) -> str:
    """Returns the first line that says something."""
    heads = ("Detected at node", "<stack traces", "File ")
    lines = [line for line in tensorflow_lines(error) if not line.startswith(heads)]
    return lines[0][:200].rstrip(" .:") if lines else type(error).__name__


def iterate(
    strategy: tf.distribute.Strategy, batches: Callable[[Slices], tf.data.Dataset]
) -> Iterator:
    """Returns an iterator whose elements hold one slice of a global batch for each replica.

    batches: (first, count, total) -> the slices first .. first + count - 1 of each global batch cut
    into `total`, in turn.
    """
    total = strategy.num_replicas_in_sync
    if total == 1:
        return iter(batches((0, 1, 1)))
    made: list[tf.data.Dataset] = []

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = total // context.num_input_pipelines
        made.append(batches((context.input_pipeline_id * count, count, total)))
        return made[-1]

    of_all = strategy.distribute_datasets_from_function(of_worker)
    # a distributed iterator takes longer than a step, and one replica here needs none
    return iter(made[0] if len(strategy.extended.worker_devices) == 1 else of_all)


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError:
        raise UsageError(
            f"--virtual_devices={count}: TensorFlow has its devices already. Start a new process."
        ) from None
