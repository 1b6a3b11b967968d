"""Splits of neurons in networks of your own, built from torch.nn.Module.

Users call split_neuron, splittable, merge_neurons and neuron_scores. A split takes four steps. These are their modules,
in the order in which they are best read:

    1. The network runs once on labels.
       trace, labels              the run, and what a label is
       facts, partition           what the run says of channels
       rules                      what an operation does to labels: in pointwise, products, norms and low_rank
       entries, shadow, axes      which entries of parameters a tensor has, and which labels
    2. Sets of channels that split together are found.
       sets, candidates           the smallest come first
       scales                     how the twins of a set share
       places, blocks             where a set stands in the parameters
    3. A set is split on trial, and the outputs are compared.
       search, attempt            one set after the other
       trial_runs                 does the network run, and are its outputs the same?
       exactness, runs            what counts as the same, and how a network is run
       modes, transparent         what is put back after a run
       noted_sizes                the sizes that modules note; candidate_numbers has those that may be sizes
    4. The split is made.
       apply, edits               what changes in each parameter; merges has that of a merge
       optimizer_state            what changes in an optimiser
       saved_config               what changes in a configuration

`neuron_scores` reads the activations of a layer by a hook, in activations.
"""

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
