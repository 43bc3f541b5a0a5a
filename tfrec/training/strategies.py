"""Where the replicas are, and how the global batch is cut among them."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from tfrec.config import TrainConfig
from tfrec.errors import UsageError
from tfrec.machine import whole_operations

Slices = tuple[int, int, int]


def make(config: TrainConfig) -> tf.distribute.Strategy:
    """The strategy of the settings; call it before TensorFlow touches a device. On two cores it also sets TensorFlow's threads.

    Raises:
        UsageError: the batch cannot be cut evenly among the replicas, or it is too late for virtual devices.
    """
    whole_operations()
    if config.virtual_devices:
        _split_cpu(config.virtual_devices)
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    strategy = {
        "default": tf.distribute.get_strategy,
        "one_device": lambda: tf.distribute.OneDeviceStrategy(devices[0]),
        # on CPUs the default is made of collectives, whose keys clash when a process makes a second strategy
        "mirrored": lambda: tf.distribute.MirroredStrategy(devices, None if gpus else tf.distribute.ReductionToOneDevice()),
    }[config.strategy]()
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        near = config.batch_size // replicas * replicas or replicas
        raise UsageError(f"--batch_size={config.batch_size} cannot be divided among {replicas} replicas. Take {near}.")
    return strategy


def iterate(strategy: tf.distribute.Strategy, batches: Callable[[Slices], tf.data.Dataset]) -> Iterator:
    """An iterator whose elements hold one slice of a global batch for each replica.

    batches: (first, count, total) -> the slices first .. first + count - 1 of each global batch cut into `total`, in turn.
    """
    total = strategy.num_replicas_in_sync
    if total == 1:  # a distributed iterator would take longer than a step
        return iter(batches((0, 1, 1)))

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = total // context.num_input_pipelines
        return batches((context.input_pipeline_id * count, count, total))

    return iter(strategy.distribute_datasets_from_function(of_worker))


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError:
        raise UsageError(f"--virtual_devices={count}: TensorFlow has its devices already. Start a new process.") from None
