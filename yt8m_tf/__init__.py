"""yt8m_tf: large-scale multi-label video classification on YouTube-8M with TensorFlow 2 and Keras 3."""

import os

# TensorFlow reads these when it is first imported: CUDA look-ups, oneDNN notices and the like are
# of no use to someone who starts a command. Set them yourself (to 0) to see everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

__version__ = "0.1.0"
