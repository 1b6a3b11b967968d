"""Splits of neurons in networks of your own, built from torch.nn.Module."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = (
    "activations apply attempt axes blocks candidate_numbers candidates edits entries exactness facts labels "
    "low_rank merge_neurons merges modes neuron_scores norms noted_sizes optimizer_state partition places "
    "pointwise products rules runs saved_config scales search sets shadow split_neuron splittable trace "
    "transparent trial_runs".split()
)
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
