"""One recurrent layer on TensorFlow, as a system to compare: arguments `<case directory> espalier|keras on|off`, the
last for XLA. Both layers have the same weights in the same layout, so only their names differ.
"""

import sys
import time

import keras
import tensorflow as tf

import layers
from benchmarks.peers.worker import read_case, serve


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    library = {"espalier": layers, "keras": keras.layers}[sys.argv[2]]
    layer = getattr(library, settings["layer"])(settings["units"], return_sequences=True)
    data = [tf.constant(x) for x in batches["inputs"]]
    layer.build(data[0].shape)
    layer.set_weights(list(weights.values()))

    def call(trainable, x):
        outputs, _ = layer.stateless_call(trainable, [v.value for v in layer.non_trainable_variables], x)
        return tf.reduce_mean(tf.square(outputs))

    def forward(trainable, x):
        return call(trainable, x), []

    def forward_backward(trainable, x):
        with tf.GradientTape() as tape:
            tape.watch([trainable, x])
            loss = call(trainable, x)
        return loss, tape.gradient(loss, [*trainable, x])

    step = tf.function(forward_backward if settings["backward"] else forward, jit_compile=sys.argv[3] == "on")
    trainable = [v.value for v in layer.trainable_variables]

    def run(steps):
        begin = time.perf_counter()
        for x in data[:steps]:
            loss, gradients = step(trainable, x)
            loss = float(loss)  # waits for it; the gradients are there before it or soon after
            for gradient in gradients:
                gradient.numpy()
        seconds = time.perf_counter() - begin
        return seconds, {"loss": loss, "norms": [float(tf.norm(gradient)) for gradient in gradients]}

    serve(run, layer.count_params(), {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
