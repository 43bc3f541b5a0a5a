"""TensorFlow without its ten lines of start-up noise."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow, which says nothing unless it fails.

    TensorFlow 2.21 writes to file descriptor 2 from C++, before any log level counts
    (TF_CPP_MIN_LOG_LEVEL included). If the import fails, all of it is shown.
    """
    if "tensorflow" in sys.modules:
        return
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
