"""Splits of neurons in networks of your own, built from torch.nn.Module."""

import lazy_loader

# The modules are imported when they are first used, and completion shows them.
_MODULES = "edits exactness optimizer_state paths split_neuron".split()
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=_MODULES)
