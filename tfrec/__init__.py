"""tfrec: recommender systems in plain TensorFlow, with a training loop that you own."""

import os

# Before TensorFlow is imported anywhere: without this every run opens with ten lines of its noise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
