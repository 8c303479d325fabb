"""Two idioms of graphs that read files: branches that are seldom taken, and refusals."""

import re
from collections.abc import Callable

import tensorflow as tf


def rarely(function: Callable) -> Callable:
    """Makes a function that the graph calls, and that is not copied into it.

    TensorFlow also visits, to skip it, every operation of a branch that is not taken. The many operations of the rare
    branches would cost a small JPEG several times what decoding it does.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def require(condition: tf.Tensor, value: tf.Tensor, complaint: Callable[[], tf.Tensor | str]) -> tf.Tensor:
    """`value` where the condition holds, else an InvalidArgumentError; what is computed from the result comes after."""

    def refuse():
        with tf.control_dependencies([tf.debugging.Assert(condition, [complaint()])]):
            return tf.identity(value)

    return tf.cond(condition, lambda: tf.identity(value), refuse)


def refusal(message: str) -> str | None:
    """The complaint of `require` in the message of its error, whether from a graph or eager; None where it has none."""
    said = re.search(r"assertion failed: \[(.*?)\]|Summarized data: b(['\"])(.*?)\2", message, re.DOTALL)
    return said and (said[1] or said[3])
