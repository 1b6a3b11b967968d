"""Small networks as different people write them; each module of this folder named small_… holds one topic."""

from collections.abc import Callable

from zoo import (
    small_attention,
    small_generators,
    small_graphs,
    small_images,
    small_other,
    small_sequences,
    small_transformers,
)

TOPICS = (
    small_images,
    small_generators,
    small_sequences,
    small_transformers,
    small_attention,
    small_graphs,
    small_other,
)

_CHANCES = "its softmax is the output"
_EXPERT = "an expert doubled takes more than its share of softmax or of the choice"
_WRITTEN = "its size is written into forward"
_MATRIX = "a square matrix is made, and the identity added"
NO_EXACT_SPLIT = {  # of (network, layer): why no exact split is known
    ("mixture_of_experts", "1.gate"): _EXPERT, ("mixture_of_experts_top_k", "router"): _EXPERT,
    ("packed_lstm", "hidden2tag"): _CHANCES, ("elman_by_hand", "h2o"): _CHANCES, ("gcn", "gc3"): _CHANCES,
    ("seq2seq_attention", "decoder.out"): _CHANCES, ("pointnet", "out"): _CHANCES,
    ("char_rnn", "cell"): _WRITTEN, ("char_rnn", "attn"): _WRITTEN, ("depthwise_separable", "model.2.3"): _WRITTEN,
    ("physics_gated_heads", "maxout"): _WRITTEN,
    ("resnet_cifar", "layer2.conv2"): "one number pads both sides of the channels",
    ("seq2seq_attention", "decoder.attention.Va"): "one score a key, squeezed",
    ("mlp_mixer", "blocks.0.mlp_tokens.fc2"): "its channels are the places of the image",
    ("mlp_mixer", "blocks.1.mlp_tokens.fc2"): "its channels are the places of the image",
    ("pointnet", "stn.conv2"): _WRITTEN, ("pointnet", "fstn.conv2"): _WRITTEN, ("pointnet", "conv3"): _WRITTEN,
    ("pointnet", "stn.fc2"): _MATRIX, ("pointnet", "fstn.fc2"): _MATRIX, ("pointnet", "conv1"): _MATRIX,
    **{("spectral_discriminator", layer): "its largest singular value changes"
       for layer in ("0", "2.weight_orig", "5")},
    ("weight_normed", "4"): "an orthogonal matrix has no two equal rows",
    ("weight_normed", "2"): "an orthogonal matrix reads it",
    ("capsules", "W"): "routing compares a capsule with its own share", ("capsules", "primary"): "routing as of W",
    ("subclassed_layers", "0"): "the next layer standardises the weights that read it",
    ("matmul_style", "w1"): "a standard deviation with n - 1 changes with the number of channels",
}  # fmt: skip


def networks() -> dict[str, Callable]:
    """All small networks: functions by their names."""
    return {
        name: make
        for topic in TOPICS
        for name, make in vars(topic).items()
        if callable(make) and not isinstance(make, type) and make.__module__ == topic.__name__ and name[0] != "_"
    }
