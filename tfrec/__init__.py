"""tfrec: recommender systems in plain TensorFlow, with a training loop that you own."""

import os
import tempfile


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its ten lines of start-up noise.

    TensorFlow 2.21 writes them to file descriptor 2 from C++, before any log level counts
    (TF_CPP_MIN_LOG_LEVEL included). If the import fails, they are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as noise:
        stderr = os.dup(2)
        os.dup2(noise.fileno(), 2)
        try:
            import tensorflow as tf

            # looks for GPUs, and complains where there is no driver
            tf.config.list_physical_devices()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BaseException:
            noise.seek(0)
            os.write(stderr, noise.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


_import_tensorflow_quietly()
