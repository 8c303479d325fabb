"""What a classifier's answer rests on: Grad-CAM and integrated gradients, as plain TensorFlow graph functions.

They run eagerly, inside a `tf.function`, and in an exported SavedModel: no XLA, no Python state. The model comes
as functions that must treat each row of a batch for itself, as every model does outside training.
"""

from collections.abc import Callable

import tensorflow as tf

Function = Callable[[tf.Tensor], tf.Tensor]
# How many points on the paths of integrated gradients go through the model together: bounds the memory.
ROWS_AT_ONCE = 32


def grad_cam(features_of: Function, head: Function, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Which places of a feature map speak for a class (Grad-CAM).

    A channel's worth is the mean of the logit's gradient over the map, and the map shows
    ReLU(sum_k worth_k * features_k), divided by its own maximum.

    Args:
        features_of: images to feature maps (B, h, w, c), usually those of the last convolution.
        head: feature maps to logits (B, K).
        images: (B, H, W, C), floats as the model takes them.
        classes: (B,) integers, the class that each map is about.

    Returns:
        (B, h, w) float32 in [0, 1]. A map is all zero where nothing speaks for the class.

    References:
        Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391
    """
    features = features_of(images)
    gradients = _gradients(head, features, classes)
    worth = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)  # (B, 1, 1, c)
    maps = tf.nn.relu(tf.reduce_sum(worth * tf.cast(features, tf.float32), axis=-1))
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True))


def integrated_gradients(
    logits_of: Callable[..., tf.Tensor],
    inputs: tf.Tensor,
    classes: tf.Tensor,
    baseline: tf.Tensor,
    steps: int = 32,
    also: tuple[tf.Tensor, ...] = (),
) -> tf.Tensor:
    """How much each value of an input adds to the logit of a class, against a baseline.

    (x - b) * mean over a of dlogit/dx at b + a (x - b), with a in the middle of each of `steps` equal parts of
    [0, 1]. With enough steps an input's attributions add up to logit(x) - logit(b).

    Memory does not grow with steps or batch beyond one result: the points go through the model 32 at a time.

    Args:
        logits_of: inputs, and rows of `also`, to logits (B, K).
        inputs: (B, ...) floats as the model takes them: pictures (B, H, W, C), embedded texts (B, L, d).
        classes: (B,) integers, the class that is explained.
        baseline: the input that says nothing, such as a black picture, normalised as `inputs` are; of any shape that
            broadcasts to theirs.
        steps: points on each path, at least 1.
        also: what else the model takes of each row and is not explained, such as a mask; (B, ...) each.

    Returns:
        Shaped as the inputs, float32, in units of logits: positive for the class, negative against it.

    Raises:
        ValueError: for less than one step.

    References:
        Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365
    """
    if steps < 1:
        raise ValueError(f"Integrated gradients need at least one step. Received: steps={steps}")
    inputs = tf.cast(inputs, tf.float32)
    baseline = tf.broadcast_to(tf.cast(baseline, tf.float32), tf.shape(inputs))
    paths = inputs - baseline
    rows = tf.shape(inputs)[0] * steps

    def add(begin, total):
        point = tf.range(begin, tf.minimum(begin + ROWS_AT_ONCE, rows))
        row = point // steps
        way = (tf.cast(point % steps, tf.float32) + 0.5) / steps
        way = tf.reshape(way, [-1] + [1] * (len(inputs.shape) - 1))
        points = tf.gather(baseline, row) + way * tf.gather(paths, row)
        context = [tf.gather(x, row) for x in also]
        gradients = _gradients(lambda points: logits_of(points, *context), points, tf.gather(classes, row))
        return begin + ROWS_AT_ONCE, tf.tensor_scatter_nd_add(total, row[:, None], gradients)

    _, total = tf.while_loop(lambda begin, total: begin < rows, add, (0, tf.zeros_like(inputs)), parallel_iterations=1)
    return paths * total / steps


def _gradients(logits_of: Function, inputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Of each row's logit of its class, with respect to the row; float32, shaped as the inputs."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        logits = tf.cast(logits_of(inputs), tf.float32)
        chosen = tf.gather(logits, classes, axis=1, batch_dims=1)
    gradients = tape.gradient(chosen, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.cast(gradients, tf.float32)
