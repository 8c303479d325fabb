"""Recomputation of a layer's activations in the backward pass, for models whose activations fill the memory."""

import keras
from keras import ops


def _opaque(x):
    """x, behind which TensorFlow looks for no constant.

    It infers shapes by searching for constants behind each `reshape`. In a recomputation, which waits for the
    gradient, that search goes through the whole backward pass, and tracing a deep model takes a minute longer.
    """
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    return tf.raw_ops.PlaceholderWithDefault(input=x, shape=x.shape)


def rematerialise(layer, *inputs, **options):
    """Calls a layer so that the backward pass finds only its inputs in memory, and computes the rest again.

    `keras.remat` knows tensors alone. So the layer's weights go through it as tensors, which gives them their
    gradients; and the recomputation gets the seeds of the first pass, which gives it the same dropout masks.

    Args:
        layer: a built layer with one tensor as output, called inside `stateless_call`.
        inputs: its tensors that need gradients.
        options: its other arguments: masks, `training` ...

    Returns:
        What `layer(*inputs, **options)` returns.

    References:
        Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost. https://arxiv.org/abs/1604.06174
    """
    trainable, state = layer.trainable_variables, layer.non_trainable_variables
    seeds = [ops.convert_to_tensor(variable) for variable in state]
    advanced = []

    def call(*tensors):
        arguments, weights = [_opaque(x) for x in tensors[: len(inputs)]], tensors[len(inputs) :]
        values = [*zip(trainable, weights, strict=True), *zip(state, seeds, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope:
            output = layer(*arguments, **options)
        advanced[:] = advanced or [scope.get_current_value(variable) for variable in state]
        return output

    output = keras.remat(call)(*inputs, *(ops.convert_to_tensor(variable) for variable in trainable))
    for variable, value in zip(state, advanced, strict=True):
        variable.assign(value)
    return output
