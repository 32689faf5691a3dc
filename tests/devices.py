"""Two logical CPUs, made before TensorFlow runs: replicas for tests."""

import tensorflow as tf

if not tf.config.get_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0]
):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
