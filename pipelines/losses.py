"""Losses that several apps share. Pure functions on keras.ops: they run inside the compiled step."""

from keras import ops


def smoothed_cross_entropy(logits, labels, smoothing=0.0):
    """Cross-entropy with label smoothing (Szegedy et al. 2016), one value a token, in nats.

    The target distribution is (1 - smoothing) on the label and smoothing / V on every class. It is
    computed from log-sum-exp, so that no (..., V) one-hot target is kept in memory.

    Args:
        logits: (..., V), any float type; computed in float32.
        labels: (...), integers.
        smoothing: Share of the mass that is spread evenly, in [0, 1).

    Returns:
        (...), float32.
    """
    logits = ops.cast(logits, "float32")
    normaliser = ops.logsumexp(logits, axis=-1)
    likely = ops.sum(ops.where(_is_label(logits, labels), logits, 0.0), axis=-1)
    loss = normaliser - (1.0 - smoothing) * likely
    return loss - smoothing * ops.mean(logits, axis=-1) if smoothing else loss


def soft_cross_entropy(logits, target, smoothing=0.0):
    """Cross-entropy with targets that are distributions, and label smoothing as above, one value a row, in nats.

    Args:
        logits: (..., K), any float type; computed in float32.
        target: (..., K), shares of each class that sum to 1.
        smoothing: Share of the mass that is spread evenly, in [0, 1).

    Returns:
        (...), float32.
    """
    logits = ops.cast(logits, "float32")
    smoothed = (1 - smoothing) * target + smoothing / target.shape[-1]
    return ops.logsumexp(logits, axis=-1) - ops.sum(smoothed * logits, axis=-1)


def hits(logits, labels):
    """1.0 where the label has the highest logit, else 0.0. Same shapes as `smoothed_cross_entropy`."""
    likely = ops.sum(ops.where(_is_label(logits, labels), logits, 0.0), axis=-1)
    # Against the maximum, not by argmax: XLA has the maximum already, from log-sum-exp.
    return ops.cast(likely >= ops.max(logits, axis=-1), "float32")


def _is_label(logits, labels):
    """(..., V) mask. A comparison, which XLA fuses into sums; a gather's gradient would be a slow scatter."""
    return ops.equal(ops.arange(logits.shape[-1], dtype="int32"), ops.cast(labels, "int32")[..., None])


def distillation(logits, teacher_logits, temperature=1.0):
    """How far a model's answers are from its teacher's: the Kullback-Leibler divergence at a temperature T, times T².

    The factor keeps gradients as large as those of labels, whatever T is (Hinton et al. 2015, section 2).

    Args:
        logits: (..., V), any float type; computed in float32.
        teacher_logits: (..., V).
        temperature: T, above 0.

    Returns:
        (...), float32.
    """
    ours, theirs = (
        scaled - ops.logsumexp(scaled, axis=-1, keepdims=True)
        for scaled in (ops.cast(found, "float32") / temperature for found in (logits, teacher_logits))
    )
    return temperature**2 * ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
