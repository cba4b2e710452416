import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.recomputation import map_recomputed


def row_function(matrix, count, kernel, bias):
    product = tf.tanh(matrix @ kernel + bias) * tf.cast(count, tf.float32)
    return product, tf.reduce_sum(matrix**2)


@pytest.mark.parametrize("jit", [False, True])
def test_results_and_gradients_are_those_of_the_function_on_each_row(jit, rng):
    matrices, kernel, bias, upstream = (
        tf.constant(rng.normal(size=shape), tf.float32) for shape in [(3, 4, 5), (5, 2), (2,), (3, 4, 2)]
    )
    counts = tf.constant([1, 0, 7])

    def run(mapped):
        with tf.GradientTape() as tape:
            tape.watch([matrices, kernel, bias])
            products, squares = mapped()
            total = tf.reduce_sum(products * upstream) + 3.0 * tf.reduce_sum(squares)
        return products, squares, *tape.gradient(total, [matrices, kernel, bias])

    def ours():
        return map_recomputed(row_function, (matrices, counts), (kernel, bias), (tf.float32, tf.float32))

    def plain():
        rows = [row_function(matrices[i], counts[i], kernel, bias) for i in range(3)]
        return [tf.stack(parts) for parts in zip(*rows, strict=True)]

    for a, b in zip(tf.function(lambda: run(ours), jit_compile=jit)(), run(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
