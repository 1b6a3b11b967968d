"""Neuron splitting: grow a neural network while it trains, without changing its output at the moment of a split."""

import lazy_loader

from neuronsplit.checks import suggesting

__version__ = "0.2.0"

# The names and where they live are listed in __init__.pyi, which editors read too. Nothing is imported before its use.
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach_stub(__name__, __file__))
