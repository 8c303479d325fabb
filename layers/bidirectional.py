"""Two recurrent layers that read a sequence from both ends."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="espalier")
class Bidirectional(keras.layers.Layer):
    """Two recurrent layers, one of which reads from the end.

    h_t = [forward h_t; backward h_t]   or   forward h_t + backward h_t

    Args:
        layer: a recurrent layer of this package; what it returns, this one returns.
        backward_layer: its partner, which returns the same, with the opposite `go_backwards`. By default one of the
            same settings, with weights and dropout masks of its own.
        merge_mode: "concat" or "sum".

    Call arguments:
        inputs: shape (B, T, d).
        initial_state: list of the states of the first layer and then those of the second. Zeros by default.
        mask: boolean (B, T), True = real. Each layer passes over padding, so that the one reading backwards begins
            with a row's last real step. Outputs at masked steps are zero.
        training: whether dropout is active.

    Returns:
        output (B, T, 2 units) or (B, 2 units), `units` wide if summed; outputs of all steps are in the order of the
        inputs. Then, if the layers return states, those of the first and those of the second.

    Raises:
        ValueError: the two layers do not fit, or another `merge_mode`.

    Example:
        >>> Bidirectional(LSTM(4, return_sequences=True))(keras.ops.ones((2, 5, 3))).shape
        TensorShape([2, 5, 8])

    References:
        Schuster & Paliwal 1997, Bidirectional Recurrent Neural Networks. https://doi.org/10.1109/78.650093
    """

    def __init__(self, layer, backward_layer=None, merge_mode="concat", **kwargs):
        super().__init__(**kwargs)
        if merge_mode not in ("concat", "sum"):
            raise ValueError(f"merge_mode must be concat or sum. Received: merge_mode={merge_mode!r}")
        self.layer = layer
        if backward_layer is None:
            config = layer.get_config() | {"go_backwards": not layer.go_backwards, "name": f"backward_{layer.name}"}
            if config["seed"] is not None:
                config["seed"] += 2  # the same would drop the same; the one after it is that of the states' dropout
            backward_layer = type(layer).from_config(config)
        self.backward_layer = backward_layer
        self.merge_mode = merge_mode
        self.supports_masking = True
        same = ("return_sequences", "return_state") + (("units",) if merge_mode == "sum" else ())
        if layer.go_backwards == backward_layer.go_backwards or any(
            getattr(layer, name) != getattr(backward_layer, name) for name in same
        ):
            raise ValueError(
                f"The two layers must have opposite go_backwards and equal {', '.join(same)}. "
                f"Received: {layer.get_config()} and {backward_layer.get_config()}"
            )

    def build(self, inputs_shape):
        self.layer.build(inputs_shape)
        self.backward_layer.build(inputs_shape)

    def call(self, inputs, initial_state=None, mask=None, training=None):
        if mask is None:
            mask = getattr(inputs, "_keras_mask", None)
        first = self.layer.STATES
        states = (None, None) if initial_state is None else (initial_state[:first], initial_state[first:])
        outputs, last = [], []
        for layer, state in zip((self.layer, self.backward_layer), states, strict=True):
            result = layer(inputs, initial_state=state, mask=mask, training=training)
            output, *state = result if layer.return_state else [result]
            turn = layer.go_backwards and layer.return_sequences
            outputs.append(ops.flip(output, axis=1) if turn else output)
            last += state
        output = ops.concatenate(outputs, axis=-1) if self.merge_mode == "concat" else outputs[0] + outputs[1]
        if mask is not None and self.layer.return_sequences:
            output = ops.where(ops.cast(mask, "bool")[:, :, None], output, ops.zeros_like(output))
        return (output, *last) if self.layer.return_state else output

    def compute_mask(self, inputs, previous_mask):
        mask = previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask
        mask = mask if self.layer.return_sequences else None
        states = self.layer.STATES + self.backward_layer.STATES
        return [mask] + [None] * states if self.layer.return_state else mask

    def compute_output_shape(self, inputs_shape):
        shapes = [layer.compute_output_shape(inputs_shape) for layer in (self.layer, self.backward_layer)]
        if not self.layer.return_state:
            shapes = [[shape] for shape in shapes]
        (output, *states), (other, *more) = shapes
        output = (*output[:-1], output[-1] + (other[-1] if self.merge_mode == "concat" else 0))
        return (output, *states, *more) if self.layer.return_state else output

    def get_config(self):
        config = super().get_config() | {"merge_mode": self.merge_mode}
        for name in ("layer", "backward_layer"):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
            config[name].pop("build_config", None)  # this layer builds them
        return config

    @classmethod
    def from_config(cls, config):
        layers = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("layer", "backward_layer")}
        return cls(**config | layers)
