"""Transformer blocks against the same blocks composed from Keras' own layers, and decoding with their
caches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from layers import FeedForward, SinusoidalPositionEncoding, TransformerDecoderBlock, TransformerEncoderBlock
from tests.layers.contract import check_layer

RNG = np.random.default_rng(0)
B, T, S, D, HEADS, HIDDEN = 2, 6, 5, 12, 3, 20
X = RNG.normal(size=(B, T, D)).astype("float32")
MEMORY = RNG.normal(size=(B, S, 10)).astype("float32")
MASK = np.arange(T) < np.array([[6], [4]])
MEMORY_MASK = np.arange(S) < np.array([[3], [5]])


def decode(layer, inputs):
    x, memory, memory_mask = inputs["x"], inputs.get("memory"), inputs.get("memory_mask")
    cache, steps = layer.make_cache(len(x), x.shape[1], memory), []
    for t in range(x.shape[1]):
        y, cache = layer(x[:, t : t + 1], memory_mask=memory_mask, cache=cache, position=t)
        steps.append(y)
    return ops.concatenate(steps, axis=1)


def test_feed_forward_keeps_the_contract():
    check_layer(lambda **kw: FeedForward(HIDDEN, "gelu", **kw), X)


def test_encoder_block_keeps_the_contract():
    inputs = {"x": X, "mask": MASK}
    check_layer(lambda **kw: TransformerEncoderBlock(HEADS, HIDDEN, **kw), inputs, padding={"x": "mask"})


def test_causal_encoder_block_keeps_the_contract():
    check_layer(
        lambda **kw: TransformerEncoderBlock(HEADS, HIDDEN, rotary_base=100.0, num_kv_heads=1, **kw),
        X,
        options={"use_causal_mask": True, "return_attention_scores": True},
        causal=True,
    )


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 1, "rotary_base": 100.0, "activation": "silu"}])
def test_decoder_block_keeps_the_contract(settings):
    check_layer(
        lambda **kw: TransformerDecoderBlock(HEADS, HIDDEN, **settings, **kw),
        {"x": X, "memory": MEMORY, "memory_mask": MEMORY_MASK},
        padding={"x": "mask", "memory": "memory_mask"},
        causal=True,
        decode=decode,
    )


def test_decoder_only_block_keeps_the_contract():
    check_layer(
        lambda **kw: TransformerDecoderBlock(HEADS, HIDDEN, cross_attention=False, rotary_base=100.0, **kw),
        X,
        padding={"x": "mask"},
        causal=True,
        decode=decode,
    )


def stock_attention(ours, query, value, **masks):
    """keras.layers.MultiHeadAttention with the weights of ours."""
    layer = keras.layers.MultiHeadAttention(HEADS, D // HEADS)
    layer.build(query.shape, value.shape)
    fused = [ours.query, ours.key_value] if ours.is_cross_attention else [ours.query_key_value]
    weights = []
    for dense in fused:
        kernel, bias = dense.get_weights()
        for columns in np.split(np.arange(len(bias)), len(bias) // D):
            weights += [kernel[:, columns].reshape(-1, HEADS, D // HEADS), bias[columns].reshape(HEADS, -1)]
    kernel, bias = ours.output_projection.get_weights()
    layer.set_weights([*weights, kernel.reshape(HEADS, -1, D), bias])
    return layer(query, value, return_attention_scores=True, **masks)


def stock_norm(ours, x):
    layer = keras.layers.LayerNormalization(epsilon=1e-5)
    layer.build(x.shape)
    layer.set_weights(ours.get_weights())
    return layer(x)


def stock_feed_forward(ours, x):
    layer = keras.Sequential([keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(D)])
    layer.build(x.shape)
    layer.set_weights(ours.get_weights())
    return layer(x)


def randomise(layer):
    """Weights that all matter, unlike the zero biases and unit scales of a fresh layer."""
    layer.set_weights([RNG.normal(scale=0.4, size=w.shape) for w in layer.weights])


def test_encoder_block_equals_keras_layers_composed():
    block = TransformerEncoderBlock(HEADS, HIDDEN)
    block.build(X.shape)
    randomise(block)
    y, scores = block(X, mask=MASK, return_attention_scores=True)
    normed = stock_norm(block.self_attention_norm, X)
    branch, expected_scores = stock_attention(block.self_attention, normed, normed, value_mask=MASK)
    x = X + branch
    x = x + stock_feed_forward(block.feedforward, stock_norm(block.feedforward_norm, x))
    np.testing.assert_allclose(y, x, atol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_decoder_block_equals_keras_layers_composed():
    block = TransformerDecoderBlock(HEADS, HIDDEN)
    block.build(X.shape, MEMORY.shape)
    randomise(block)
    y, scores = block(X, MEMORY, mask=MASK, memory_mask=MEMORY_MASK, return_attention_scores=True)
    normed = stock_norm(block.self_attention_norm, X)
    branch, expected = stock_attention(block.self_attention, normed, normed, value_mask=MASK, use_causal_mask=True)
    np.testing.assert_allclose(scores["self"], expected, atol=1e-5)
    x = X + branch
    normed = stock_norm(block.memory_attention_norm, x)
    branch, expected = stock_attention(block.memory_attention, normed, MEMORY, value_mask=MEMORY_MASK)
    np.testing.assert_allclose(scores["cross"], expected, atol=1e-5)
    x = x + branch
    x = x + stock_feed_forward(block.feedforward, stock_norm(block.feedforward_norm, x))
    np.testing.assert_allclose(y, x, atol=1e-5)


def test_masks_that_keras_attaches_are_used():
    ids = np.array([[3, 4, 0, 0], [5, 1, 2, 8]])
    embedding = keras.layers.Embedding(9, D, mask_zero=True)
    embedded, plain = embedding(ids), np.asarray(embedding(ids))
    encoder, decoder = TransformerEncoderBlock(HEADS, HIDDEN), TransformerDecoderBlock(HEADS, HIDDEN)
    np.testing.assert_allclose(encoder(embedded), encoder(plain, mask=ids != 0), atol=1e-6)
    np.testing.assert_array_equal(encoder(embedded)._keras_mask, ids != 0)
    explicit, scores = decoder(plain, plain, mask=ids != 0, memory_mask=ids != 0, return_attention_scores=True)
    implicit, implicit_scores = decoder(embedded, embedded, return_attention_scores=True)
    np.testing.assert_allclose(implicit, explicit, atol=1e-6)
    for name in ("self", "cross"):
        np.testing.assert_allclose(implicit_scores[name], scores[name], atol=1e-6)
        assert np.all(np.asarray(implicit_scores[name])[0, :, :, 2:][:, 0] == 0)


@pytest.mark.parametrize("make", [TransformerEncoderBlock, TransformerDecoderBlock])
def test_dropout_acts_in_training_only(make):
    block = make(HEADS, HIDDEN, dropout=0.5)
    inputs = (X,) if make is TransformerEncoderBlock else (X, MEMORY)
    calm = block(*inputs)
    np.testing.assert_array_equal(block(*inputs), calm)
    first, second = block(*inputs, training=True), block(*inputs, training=True)
    assert np.abs(first - calm).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3
    # The residual path itself is never dropped: with both branches silenced the block is the identity.
    silenced = make(HEADS, HIDDEN, dropout=1 - 1e-7)
    np.testing.assert_array_equal(silenced(*inputs, training=True), X)


class TinyDecoder(keras.Model):
    """Two decoder blocks with positions, as a model under the training and serving code uses them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.positions = SinusoidalPositionEncoding()
        settings = {"num_kv_heads": 1, "rotary_base": 100.0}
        self.blocks = [TransformerDecoderBlock(HEADS, HIDDEN, **settings) for _ in range(2)]

    def call(self, x, memory=None, memory_mask=None, caches=None, position=None):
        x, new_caches = self.positions(x, position=position), []
        for i, block in enumerate(self.blocks):
            if caches is None:
                x = block(x, memory, memory_mask=memory_mask)
            else:
                x, cache = block(x, memory_mask=memory_mask, cache=caches[i], position=position)
                new_caches.append(cache)
        return x if caches is None else (x, new_caches)


def operations(function):
    """Names of all operations and attributes of a concrete function, its library functions included."""
    graph = function.graph.as_graph_def()
    nodes = list(graph.node) + [node for f in graph.library.function for node in f.node_def]
    attributes = {name for node in nodes for name in node.attr}
    return {n.op for n in nodes} | attributes | {name for f in graph.library.function for name in f.attr}


def is_for_xla_only(name):
    return name.startswith("Xla") or name == "_XlaMustCompile"


@pytest.mark.parametrize("jit", [False, True])
def test_stateless_decoding_in_a_compiled_loop_equals_the_full_call(jit):
    model = TinyDecoder()
    full = np.asarray(model(X, memory=MEMORY, memory_mask=MEMORY_MASK))
    trainable = [tf.convert_to_tensor(w) for w in model.trainable_variables]
    non_trainable = [tf.convert_to_tensor(w) for w in model.non_trainable_variables]

    @tf.function(jit_compile=jit)
    def decode_all(trainable, non_trainable, x, memory, memory_mask):
        caches = [block.make_cache(tf.shape(x)[0], T, memory) for block in model.blocks]
        outputs = tf.TensorArray(tf.float32, size=T, element_shape=(None, 1, D))
        for t in tf.range(T):
            arguments = {"memory_mask": memory_mask, "caches": caches, "position": t}
            (y, caches), _ = model.stateless_call(trainable, non_trainable, tf.gather(x, [t], axis=1), **arguments)
            outputs = outputs.write(t, y)
        return tf.concat(tf.unstack(outputs.stack(), num=T), axis=1)

    y = decode_all(trainable, non_trainable, X, MEMORY, MEMORY_MASK)
    np.testing.assert_allclose(y, full, atol=1e-5)


def test_a_decoding_step_holds_no_operation_that_serving_refuses():
    model = TinyDecoder()
    model(X, memory=MEMORY)
    caches = [block.make_cache(B, T, MEMORY) for block in model.blocks]

    @tf.function
    def step(x, memory_mask, caches, position):
        return model(x, memory_mask=memory_mask, caches=caches, position=position)

    @tf.function
    def refused(cache):
        return ops.slice_update(cache, (0, 0, 2, 0), ops.ones((B, 1, 1, 4)))

    names = operations(step.get_concrete_function(X[:, :1], MEMORY_MASK, caches, tf.constant(3)))
    assert "SelectV2" in names  # the cache is written here
    assert not [name for name in names if is_for_xla_only(name)]
    # The walk does see such operations where there are some.
    assert any(map(is_for_xla_only, operations(refused.get_concrete_function(caches[0]["self"]["key"]))))


def test_int8_blocks_stay_near_and_are_saved(tmp_path):
    x, memory = keras.Input((None, D)), keras.Input((None, 10))
    encoded = TransformerEncoderBlock(HEADS, HIDDEN, name="encoder")(memory_in := keras.layers.Dense(D)(memory))
    model = keras.Model([x, memory], TransformerDecoderBlock(HEADS, HIDDEN, name="decoder")(x, encoded + memory_in))
    before = np.asarray(model([X, MEMORY]))
    model.quantize("int8")
    after = np.asarray(model([X, MEMORY]))
    assert 0 < np.abs(after - before).max() < 0.1 * np.abs(before).max()
    assert sum(w.dtype == "int8" for w in model.weights) == 1 + 4 + 7
    model.save(tmp_path / "int8.keras")
    loaded = keras.saving.load_model(tmp_path / "int8.keras")
    np.testing.assert_allclose(loaded([X, MEMORY]), after, atol=1e-6)


def test_misuse_is_refused_clearly():
    with_memory = TransformerDecoderBlock(HEADS, HIDDEN)
    without = TransformerDecoderBlock(HEADS, HIDDEN, cross_attention=False)
    with_memory(X, MEMORY)
    with pytest.raises(ValueError, match="needs a memory or a cache"):
        with_memory(X)
    with pytest.raises(ValueError, match="takes no memory"):
        without(X, X)
    with pytest.raises(ValueError, match="needs a memory"):
        with_memory.make_cache(B, T)
