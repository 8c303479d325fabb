import keras
import numpy as np

from layers import LSTM, Conv1D, PreNormResidual
from tests.layers.contract import check_layer

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 6, 8)).astype("float32")
MASK = np.arange(6) < np.array([[6], [4], [2]])


def test_contract_around_a_recurrent_layer():
    check_layer(
        lambda name=None, **options: PreNormResidual(
            LSTM(8, return_sequences=True, name="inner", **options), name=name, **options
        ),
        {"x": X, "mask": MASK},
        padding={"x": "mask"},
        causal=True,
    )


def test_it_is_norm_then_layer_then_sum():
    inner = keras.layers.Conv1D(8, 3, padding="same")
    block = PreNormResidual(Conv1D(8, 3, padding="same"))
    found = block(X)
    inner.build(X.shape)
    inner.set_weights([weight.numpy() for weight in block.layer.weights])
    normed = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, X + inner(normed).numpy(), atol=1e-5)


def test_dropout_is_of_the_branch_alone():
    block = PreNormResidual(Conv1D(8, 3, padding="same"), dropout=0.5)
    branch = block(X).numpy() - X
    ratio = (block(X, training=True).numpy() - X) / branch
    kept = ratio > 1
    np.testing.assert_allclose(ratio[kept], 2, rtol=1e-2)
    np.testing.assert_allclose(ratio[~kept], 0, atol=1e-2)
    assert 0.3 < kept.mean() < 0.7
