"""Low-rank adapters: to fine-tune a large network by a small share of weights."""

from keras import layers as stock


def add_adapters(layer: stock.Layer, rank: int) -> None:
    """Freezes all weights of a layer or model, and gives each projection in it a trainable adapter of low rank.

    y = x (W + A B) + b, where W and b stay as they are, A is (inputs, rank), and B (rank, outputs) begins as zero:
    what the layer computes is at first the same.

    Projections are Keras' Dense and EinsumDense, at any depth; embeddings and norms are frozen without an adapter.
    Saving to a .keras file merges the adapters into W.

    Args:
        layer: built, and not yet adapted.
        rank: of the adapters, 1 or more.

    Raises:
        ValueError: the rank is no positive number, or there is no projection below, as in recurrent and
            convolutional networks.

    References:
        Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models. https://arxiv.org/abs/2106.09685
    """
    if rank < 1:
        raise ValueError(f"The rank of adapters is 1 or more. Received: rank={rank}")
    parts = layer._flatten_layers()
    projections = [part for part in parts if isinstance(part, (stock.Dense, stock.EinsumDense))]
    if not projections:
        raise ValueError(f"Adapters need Dense or EinsumDense projections, as of a transformer; {layer.name} has none.")
    # Variable by variable: below a layer that is not trainable itself, nothing would be, adapters included.
    for variable in layer.variables:
        variable.trainable = False
    for projection in projections:
        projection.enable_lora(rank)
