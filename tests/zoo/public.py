"""Networks of torchvision, timm and transformers in small configurations, with random weights.

timm and transformers are the optional extra `zoo`. They are imported when their networks are asked for.
"""

import importlib
from collections.abc import Callable
from functools import partial

import torch

from neuronsplit.data.download import import_torchvision_datasets
from zoo import public_images, public_torchvision, public_transformers

_EXPERT = "an expert doubled takes more than its share of the choice"
_ALIBI = "the slopes of its heads follow from their number"
_PLACES = "its channels are the places of the image"
_NEIGHBOURS = "a convolution runs along the channels"
_FOURIER = "a Fourier transform mixes the channels"
NO_EXACT_SPLIT = {  # of (network, layer): why no exact split is known
    **{(name, f"model.layers.{n}.mlp.gate"): _EXPERT for name in ("mixtral", "qwen3_moe") for n in range(2)},
    **{("bloom", f"transformer.h.{n}.self_attention.query_key_value"): _ALIBI for n in range(2)},
    **{("mpt", f"transformer.blocks.{n}.attn.Wqkv"): _ALIBI for n in range(2)},
    **{("mlp_mixer.MlpMixer", f"blocks.{n}.mlp_tokens.fc2"): _PLACES for n in range(2)},
    **{("mlp_mixer.MlpMixer/resmlp", f"blocks.{n}.linear_tokens"): _PLACES for n in range(2)},
    **{("mlp_mixer.MlpMixer/gmlp", f"blocks.{n}.mlp_channels.gate.proj"): _PLACES for n in range(2)},
    **{("ecaresnet26t", f"layer{n}.0.{layer}"): _NEIGHBOURS for n in range(1, 5)
       for layer in ("conv3", "downsample.1", "se.conv")},
    **{("mvit", f"blocks.{n}.attn.rel_pos_{axis}"): "its rows are positions, which softmax runs over" for n in range(2)
       for axis in "hwt"},
    **{("mobilevitv2_050", f"stages.{n}.1.transformer.{m}.attn.qkv_proj"): "its first channel is the only query"
       for n, depth in ((2, 2), (3, 4), (4, 3)) for m in range(depth)},
    ("fnet", "fnet.embeddings.projection"): _FOURIER,
    **{("fnet", f"fnet.encoder.layer.{n}.output.dense"): _FOURIER for n in range(2)},
    **{("convbert", f"convbert.encoder.layer.{n}.attention.self.conv_kernel_layer"): "softmax over the kernel's places"
       for n in range(2)},
}  # fmt: skip


def torchvision_networks() -> dict[str, Callable]:
    """Networks of torchvision: functions by their names."""
    import_torchvision_datasets()
    models = importlib.import_module("torchvision.models")
    return {
        name: partial(_built, partial(make, models), torch.randn, shape)
        for name, (make, shape) in public_torchvision.MODELS.items()
    }


def timm_networks() -> dict[str, Callable]:
    """Networks of timm: functions by their names.

    Two images: with one, torch 2.13 has wrong gradients of a BatchNorm2d in evaluation whose output is transposed.
    """
    import_torchvision_datasets()  # timm imports torchvision
    timm = _optional("timm")
    return {
        name: partial(_built, partial(_of_timm, timm, name, options), torch.randn, (2, 3, size, size))
        for name, (size, options) in public_images.MODELS.items()
    }


def transformers_networks() -> dict[str, Callable]:
    """Networks of Hugging Face's transformers: functions by their names."""
    import_torchvision_datasets()
    transformers = _optional("transformers")
    transformers.logging.set_verbosity_error()
    return {
        name: partial(_configured, transformers, *described) for name, described in public_transformers.MODELS.items()
    }


def _built(make: Callable, draw: Callable, shape: tuple[int, ...]) -> tuple:
    return make(), draw(shape)


def _of_timm(timm, name: str, options: dict):
    def found(value: object) -> object:
        if isinstance(value, str) and value[:1] == "@":
            return _class_of(timm, value[1:])
        return [found(one) for one in value] if isinstance(value, list) else value

    options = {key: found(value) for key, value in options.items()} | {"num_classes": 5}
    if "." in name:
        return _class_of(timm, name.partition("/")[0])(**options)
    return timm.create_model(name, **options)


def _class_of(timm, path: str) -> type:
    module, _, name = path.partition(".")
    return getattr(importlib.import_module(f"timm.models.{module}"), name)


def _configured(transformers, model: str, config: str, options: dict, inputs: Callable[[], dict]) -> tuple:
    configuration = getattr(transformers, config)(**options)
    configuration.use_cache = False
    configuration._experts_implementation = "eager"  # the grouped product has no float64
    return getattr(transformers, model)(configuration), inputs()


def _optional(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"{name} is not installed ({error}): pip install 'neuronsplit[zoo]'") from error
