"""Multi-head attention against Keras' own layers with the same weights, and what Keras' layers do not have:
the cache, fused projections with adapters and int8, and rows without a single visible key."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from layers import MultiHeadAttention, RotaryEmbedding, TiedEmbedding, donated_caches
from tests.layers.contract import check_layer

RNG = np.random.default_rng(0)
B, T, S, D, HEADS, HEAD_DIM = 2, 6, 5, 12, 4, 3
QUERY = RNG.normal(size=(B, T, D)).astype("float32")
MEMORY = RNG.normal(size=(B, S, 10)).astype("float32")
QUERY_MASK = np.arange(T) < np.array([[6], [4]])
MEMORY_MASK = np.arange(S) < np.array([[3], [5]])
SELF_SETTINGS = [{}, {"num_kv_heads": 2}, {"num_kv_heads": 1, "rotary_base": 100.0, "head_dim": 4}]


def decode(layer, inputs):
    x = inputs["query"]
    cache, steps = layer.empty_cache(len(x), x.shape[1]), []
    for t in range(x.shape[1]):
        y, cache = layer(x[:, t : t + 1], cache=cache, position=t)
        steps.append(y)
    return ops.concatenate(steps, axis=1)


@pytest.mark.parametrize("settings", SELF_SETTINGS)
def test_causal_self_attention_keeps_the_contract(settings):
    check_layer(
        lambda **kw: MultiHeadAttention(HEADS, **settings, **kw),
        QUERY,
        options={"use_causal_mask": True},
        causal=True,
        decode=decode,
    )


def test_masked_self_attention_keeps_the_contract():
    inputs = {"query": QUERY, "query_mask": QUERY_MASK}
    check_layer(lambda **kw: MultiHeadAttention(HEADS, **kw), inputs, padding={"query": "query_mask"})


@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_cross_attention_keeps_the_contract(num_kv_heads):
    def decode_from_projected_memory(layer, inputs):
        cache = layer.project_memory(inputs["value"])
        steps = [layer(QUERY[:, t : t + 1], value_mask=MEMORY_MASK, cache=cache)[0] for t in range(T)]
        return ops.concatenate(steps, axis=1)

    check_layer(
        lambda **kw: MultiHeadAttention(HEADS, num_kv_heads=num_kv_heads, use_bias=False, **kw),
        {"query": QUERY, "value": MEMORY, "value_mask": MEMORY_MASK},
        padding={"value": "value_mask"},
        decode=decode_from_projected_memory,
    )


def test_scores_keep_the_contract():
    options = {"return_attention_scores": True, "use_causal_mask": True}
    check_layer(lambda **kw: MultiHeadAttention(HEADS, **kw), QUERY, options=options)


def keras_reference(ours, num_kv_heads):
    """Keras' layer with the weights of ours, whose fused kernels are cut into heads."""
    if num_kv_heads == HEADS:
        theirs = keras.layers.MultiHeadAttention(HEADS, HEAD_DIM)
    else:
        theirs = keras.layers.GroupQueryAttention(HEAD_DIM, HEADS, num_kv_heads)
    widths = np.cumsum([HEADS * HEAD_DIM, num_kv_heads * HEAD_DIM])
    if ours.is_cross_attention:
        theirs.build((B, T, D), MEMORY.shape)
        parts = [ours.query.get_weights()]
        kernel, bias = ours.key_value.get_weights()
        parts += zip(np.split(kernel, 2, axis=1), np.split(bias, 2), strict=True)
    else:
        theirs.build((B, T, D), (B, T, D))
        kernel, bias = ours.query_key_value.get_weights()
        parts = zip(np.split(kernel, widths, axis=1), np.split(bias, widths), strict=True)
    weights = []
    for kernel, bias in parts:
        weights += [kernel.reshape(len(kernel), -1, HEAD_DIM), bias.reshape(-1, HEAD_DIM)]
    kernel, bias = ours.output_projection.get_weights()
    theirs.set_weights([*weights, kernel.reshape(HEADS, HEAD_DIM, D), bias])
    return theirs


def randomise(layer):
    """Weights and biases that all matter, unlike the zero biases of a fresh layer."""
    layer.set_weights([RNG.normal(scale=0.4, size=w.shape) for w in layer.weights])


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "causal", "all"])
def test_outputs_scores_and_gradients_equal_keras(num_kv_heads, cross, mask):
    ours = MultiHeadAttention(HEADS, num_kv_heads=num_kv_heads)
    value = MEMORY if cross else None
    ours.build(QUERY.shape, *([MEMORY.shape] if cross else []))
    randomise(ours)
    theirs = keras_reference(ours, num_kv_heads)
    key_mask = MEMORY_MASK if cross else QUERY_MASK
    free = RNG.random((B, T, S if cross else T)) < 0.7
    free[..., 0] = True
    masks = {"value_mask": key_mask} if mask in ("padding", "all") else {}
    masks |= {"attention_mask": free} if mask == "all" else {}
    masks |= {"use_causal_mask": True} if mask in ("causal", "all") else {}
    x = tf.constant(QUERY)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        output, scores = ours(x, value, return_attention_scores=True, **masks)
        source = x if value is None else value
        expected, expected_scores = theirs(x, source, return_attention_scores=True, **masks)
        loss, expected_loss = ops.sum(ops.sin(output)), ops.sum(ops.sin(expected))
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, x), tape.gradient(expected_loss, x), atol=1e-5)


def test_rotary_attention_equals_rotating_by_hand():
    layer = MultiHeadAttention(2, rotary_base=100.0, use_bias=False)
    _, scores = layer(QUERY, return_attention_scores=True)
    projected = QUERY @ layer.query_key_value.get_weights()[0]
    q, k, _ = (part.reshape(B, T, 2, 6).transpose(0, 2, 1, 3) for part in np.split(projected, 3, axis=-1))
    rotate = RotaryEmbedding(100.0)
    products = np.asarray(rotate(q)) @ np.asarray(rotate(k)).transpose(0, 1, 3, 2) / 6**0.5
    np.testing.assert_allclose(scores, ops.softmax(products), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), length=st.integers(1, 6), padding=st.integers(1, 4), causal=st.booleans())
def test_padding_never_changes_real_outputs(data, length, padding, causal):
    layer = MultiHeadAttention(HEADS)
    lengths = data.draw(st.lists(st.integers(1, length), min_size=B, max_size=B))
    real = np.arange(length) < np.array(lengths)[:, None]
    x = QUERY[:, :length]
    garbage = data.draw(st.floats(-1e4, 1e4)) * np.ones((B, padding, D), "float32")
    short = np.asarray(layer(x, query_mask=real, use_causal_mask=causal))
    padded = np.asarray(
        layer(
            np.concatenate([x, garbage], axis=1).astype("float32"),
            query_mask=np.pad(real, [(0, 0), (0, padding)]),
            use_causal_mask=causal,
        )
    )
    np.testing.assert_allclose(padded[:, :length][real], short[real], atol=1e-5)
    for row, n in enumerate(lengths):  # and a row of a batch equals the row alone
        alone = layer(x[row : row + 1, :n], use_causal_mask=causal)
        np.testing.assert_allclose(short[row, :n], alone[0], atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("cross", [False, True])
def test_an_empty_row_gives_finite_outputs_and_gradients(policy, cross):
    layer = MultiHeadAttention(HEADS, dtype=policy)
    arguments = {"value": MEMORY, "value_mask": MEMORY_MASK} if cross else {"query_mask": QUERY_MASK}
    mask = next(name for name in arguments if name.endswith("mask"))
    arguments[mask] = arguments[mask] & np.array([[True], [False]])  # row 1: padding only
    with tf.GradientTape() as tape:
        output = layer(QUERY, **arguments)
        loss = ops.sum(ops.square(ops.cast(output, "float32")))
    assert np.isfinite(np.asarray(output, "float32")).all()
    for gradient in tape.gradient(loss, [w.value for w in layer.trainable_weights]):
        assert np.isfinite(gradient).all()


def test_large_scores_do_not_overflow_half_precision():
    layer = MultiHeadAttention(1, use_bias=False, kernel_initializer="ones", dtype="mixed_float16")
    x = np.full((1, 2, 64), 0.7, "float32")  # q · k is 64 · 44.8², which float16 cannot hold unscaled
    assert np.isfinite(np.asarray(layer(x), "float32")).all()


def test_masks_that_keras_attaches_are_used():
    embedding, attention = TiedEmbedding(9, D, mask_zero=True), MultiHeadAttention(HEADS)
    ids = np.array([[3, 4, 0, 0], [5, 1, 2, 8]])
    explicit = np.asarray(attention(np.asarray(embedding(ids)), query_mask=ids != 0))
    implicit = attention(embedding(ids))
    np.testing.assert_allclose(implicit, explicit, atol=1e-6)
    np.testing.assert_array_equal(implicit._keras_mask, ids != 0)  # and passed on
    symbolic = keras.Input((None,), dtype="int32")
    model = keras.Model(symbolic, attention(embedding(symbolic)))
    np.testing.assert_allclose(model(ids), explicit, atol=1e-6)
    np.testing.assert_allclose(model.predict(ids, verbose=0), explicit, atol=1e-5)

    cross = MultiHeadAttention(HEADS)
    memory = embedding(ids)
    explicit = cross(QUERY, np.asarray(memory), value_mask=ids != 0)
    np.testing.assert_allclose(cross(QUERY, memory), explicit, atol=1e-6)
    assert np.abs(explicit - cross(QUERY, np.asarray(memory))).max() > 1e-4


def test_each_row_decodes_at_its_own_position():
    layer = MultiHeadAttention(HEADS, head_dim=4, num_kv_heads=2, rotary_base=1000.0)
    full = np.asarray(layer(QUERY, use_causal_mask=True))
    cache = layer.empty_cache(B, T)
    for t in range(T):  # row 1 waits at position 0 until row 0 is two steps ahead
        positions = np.array([t, max(t - 2, 0)])
        y, cache, scores = layer(
            QUERY[np.arange(B), positions][:, None],
            cache=cache,
            position=positions,
            return_attention_scores=True,
        )
        np.testing.assert_allclose(y[:, 0], full[np.arange(B), positions], atol=1e-5)
        assert scores.shape == (B, HEADS, 1, T)
        assert np.all(np.asarray(scores)[0, :, 0, t + 1 :] == 0)


@pytest.mark.parametrize("donated", [False, True])
def test_hypotheses_share_a_cache(donated):
    """Three hypotheses of each row, each as if it were alone: the first two part ways after two steps."""
    layer = MultiHeadAttention(HEADS, head_dim=4, num_kv_heads=2, rotary_base=1000.0)
    common, rest = QUERY[:, :2], RNG.normal(size=(3, B, T - 2, D)).astype("float32")
    histories = [np.concatenate([common, part], axis=1) for part in rest]  # 3 x (B, T, D)
    expected = [np.asarray(layer(history, use_causal_mask=True)) for history in histories]
    steps = np.stack(histories, axis=2)  # (B, T, 3, D)
    slot_position, slot_owner = np.divmod(np.arange(3 * T), 3)

    @tf.function
    def decode():
        cache, outputs = layer.empty_cache(B, T, hypotheses=3), []
        cache = {name: tf.raw_ops.DeepCopy(x=x) for name, x in cache.items()}
        for t in range(T):
            # The common steps are hypothesis 0's, wherever a hypothesis came from.
            owner = np.where(slot_position < 2, 0, np.arange(3)[:, None])  # (3, slots)
            visible = np.broadcast_to((slot_position <= t) & (slot_owner == owner), (B, 3, 3 * T))
            with donated_caches() if donated else contextlib.nullcontext():
                y, cache = layer(steps[:, t], attention_mask=visible, cache=cache, position=t)
            outputs.append(y)
        return tf.stack(outputs, axis=1)  # (B, T, 3, D)

    found = decode().numpy()
    for k in range(3):
        np.testing.assert_allclose(found[:, :, k], expected[k], atol=1e-5)


@pytest.mark.parametrize("settings", SELF_SETTINGS)
def test_a_sequence_read_at_once_fills_the_cache_as_its_steps_do(settings):
    layer = MultiHeadAttention(HEADS, **settings)
    layer(QUERY)
    cache = layer.empty_cache(B, T)
    for t in range(T):
        _, cache = layer(QUERY[:, t : t + 1], cache=cache, position=t)
    for name, found in layer.project_sequence(QUERY).items():
        np.testing.assert_allclose(found, cache[name], atol=1e-5)


def test_the_cache_of_grouped_heads_is_smaller_and_in_the_compute_dtype():
    layer = MultiHeadAttention(HEADS, num_kv_heads=1, dtype="mixed_bfloat16")
    layer.build((None, None, D))
    cache = tf.function(lambda ids: layer.empty_cache(ops.shape(ids)[0], 9))(np.zeros((7, 2)))
    assert {name: (tuple(x.shape), x.dtype) for name, x in cache.items()} == {
        name: ((7, 1, 9, HEAD_DIM), tf.bfloat16) for name in ("key", "value")
    }


def test_dropout_acts_in_training_only_and_scores_are_those_before_it():
    layer = MultiHeadAttention(HEADS, dropout=0.5)
    output, scores = layer(QUERY, return_attention_scores=True)
    np.testing.assert_array_equal(layer(QUERY), output)
    dropped, training_scores = layer(QUERY, return_attention_scores=True, training=True)
    assert np.abs(dropped - output).max() > 1e-3
    np.testing.assert_allclose(training_scores, scores, atol=1e-6)


def small_model(cross):
    query, memory = keras.Input((None, D)), keras.Input((None, 10))
    layer = MultiHeadAttention(HEADS, num_kv_heads=2, name="attention")
    output = layer(query, memory) if cross else layer(query)
    return keras.Model([query, memory], output), layer


@pytest.mark.parametrize("cross", [False, True])
def test_lora_trains_adapters_only_and_merges_when_saved(cross, tmp_path):
    model, layer = small_model(cross)
    before = np.asarray(model([QUERY, MEMORY]))
    frozen = {w.path: w.numpy() for w in layer.weights}
    layer.enable_lora(2)
    np.testing.assert_allclose(model([QUERY, MEMORY]), before, atol=1e-6)
    assert [w.name for w in layer.trainable_weights] == ["lora_kernel_a", "lora_kernel_b"] * (3 if cross else 2)

    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit([QUERY, MEMORY], np.zeros_like(QUERY), epochs=2, verbose=0)
    after = np.asarray(model([QUERY, MEMORY]))
    assert np.abs(after - before).max() > 1e-3
    for weight in layer.weights:
        if weight.path in frozen:
            np.testing.assert_array_equal(weight, frozen[weight.path])

    model.save(tmp_path / "lora.keras")
    loaded = keras.saving.load_model(tmp_path / "lora.keras")
    np.testing.assert_allclose(loaded([QUERY, MEMORY]), after, atol=1e-5)
    assert loaded.get_layer("attention").lora_rank == 2
    assert len(loaded.get_layer("attention").trainable_weights) == len(layer.trainable_weights)


@pytest.mark.parametrize("by_model", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_int8_stays_near_and_is_saved(by_model, cross, tmp_path):
    model, layer = small_model(cross)
    before = np.asarray(model([QUERY, MEMORY]))
    (model if by_model else layer).quantize("int8")
    layer.quantize("int8")  # what is quantised already is left alone
    after = np.asarray(model([QUERY, MEMORY]))
    assert [w.dtype for w in layer.weights if w.name == "kernel"] == ["int8"] * (3 if cross else 2)
    assert 0 < np.abs(after - before).max() < 0.05 * np.abs(before).max()

    model.save(tmp_path / "int8.keras")
    loaded = keras.saving.load_model(tmp_path / "int8.keras")
    np.testing.assert_allclose(loaded([QUERY, MEMORY]), after, atol=1e-6)
    assert loaded.get_layer("attention").get_config() == layer.get_config()


def test_misuse_is_refused_clearly():
    with pytest.raises(ValueError, match="must divide num_heads. Received: num_heads=4, num_kv_heads=3"):
        MultiHeadAttention(4, num_kv_heads=3)
    with pytest.raises(ValueError, match="num_heads=5, width 12"):
        MultiHeadAttention(5)(QUERY)
    layer, cross = MultiHeadAttention(HEADS), MultiHeadAttention(HEADS)
    layer(QUERY)
    cross(QUERY, MEMORY)
    with pytest.raises(ValueError, match="built without a value"):
        layer(QUERY, MEMORY)
    with pytest.raises(ValueError, match="needs a value or a cache"):
        cross(QUERY)
    with pytest.raises(ValueError, match=r"\(2, 6, 12\), position=0"):
        layer(QUERY, cache=layer.empty_cache(B, T), position=0)
    with pytest.raises(ValueError, match="project_memory serves cross-attention"):
        layer.project_memory(MEMORY)
    with pytest.raises(ValueError, match="empty_cache serves self-attention"):
        cross.empty_cache(B, T)
    with pytest.raises(ValueError, match="project_sequence serves self-attention"):
        cross.project_sequence(QUERY)
