"""What absltest does when a file is run alone, for pytest."""

from absl import flags

from tests import devices  # noqa: F401 (before any test touches TensorFlow)

flags.FLAGS.mark_as_parsed()
