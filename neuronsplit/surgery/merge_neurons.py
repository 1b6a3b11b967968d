"""Merge two neurons of any network that runs into one, in place: the reverse of `split_neuron`.

What goes with each neuron is found as for a split, and so are the numbers that are written in. They are tried in a copy
of the network in which the second neuron is a twin of the first one. There, the merge must leave the output as it is.

The first neuron stays, and what read the second one reads it instead (Srinivas & Babu 2015, arXiv 1507.06149). Where a
scale comes through, that is multiplied by the ratio of the norms of what makes the two (Kim et al. 2020, arXiv
2010.13160). So a merge of twins is exact, whatever rule they were split by. Those that a tied parameter or a norm
made are refused. Of scaled twins, the one that stays keeps its scale.

The state of an optimiser follows the gradients. Those of what reads the first neuron stay, and those of what makes the
two are added. Of mean squares, the roots are added, which is their upper bound. That is exact for twins whose γ and δ
are above 0, and the same for all outputs. It is too large by about 1 % after `outgoing`, and by (|γ| + |δ|)² after
`antisymmetric`.
"""

import copy
import operator
from functools import partial

import torch
from torch import Tensor, nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import MERGE, SplitRecord, make_split
from neuronsplit.surgery.attempt import Inexact
from neuronsplit.surgery.candidates import with_neurons
from neuronsplit.surgery.edits import Place
from neuronsplit.surgery.merges import ratio_of, ratios
from neuronsplit.surgery.modes import in_evaluation
from neuronsplit.surgery.noted_sizes import weight_norms
from neuronsplit.surgery.optimizer_state import optimizers_of
from neuronsplit.surgery.runs import require_module
from neuronsplit.surgery.saved_config import follow_config
from neuronsplit.surgery.search import find_split
from neuronsplit.surgery.split_neuron import Optimizers
from neuronsplit.surgery.trial_runs import Check, Sizes, try_split


def merge_neurons(
    net: nn.Module,
    where: str,
    i: int,
    j: int,
    *,
    example_inputs: object,
    optimizer: Optimizers = None,
    state_exponents: dict[str, int] | None = None,
) -> SplitRecord:
    """Merge neuron (channel) j of a layer into neuron i in place, with the sets in which they split.

    i, j: two neurons. If each splits only in a set, such as a head of attention, one set is merged into the other.
        The second twin of a split is the last neuron if `last` is true in its record. Else it stands behind the first
        one, or behind the run of its set.
    Other arguments as of `split_neuron`.

    Returns a record of the merge, for `replay`. Its `change` is the largest one of an output, relative to the largest
        output. It is that on the example inputs, in evaluation and in the network's own precision.
    Raises ValueError where the neurons have no exact split, or split together. Nothing is changed then.
    """
    require_module(net)
    if not all(hasattr(number, "__index__") for number in (i, j)) or i == j:
        raise ValueError(f"neurons {i!r} and {j!r}: allowed are two different whole numbers")
    neurons, optimizers = {where: [operator.index(i), operator.index(j)]}, optimizers_of(optimizer)
    candidates, trial = partial(with_neurons, neurons), partial(_try_merge, exactness.named_tensors(net))
    found = find_split(net, [where], candidates, example_inputs, "scaled", None, True, unscaled=True, trial=trial)
    before = _outputs(net, example_inputs)
    record = make_split(net, found, optimizers, "carry", state_exponents or {})
    change = exactness.max_relative_change(before, _outputs(net, example_inputs))
    return follow_config(net, record._replace(change=change), example_inputs)


def _outputs(net: nn.Module, example_inputs: object) -> list[Tensor]:
    with in_evaluation(net):
        return exactness.outputs_of(exactness.call_with(net, example_inputs, torch.get_default_device(), None, 0.0)())


def _try_merge(
    own: dict[str, Tensor], net: nn.Module, split: SplitRecord, check: Check, eps: dict[str, float], *grown: Sizes
) -> tuple[SplitRecord, str | None]:
    """Try to merge the second of two sets into the first one, as `try_split` does with their splits.

    own: the parameters and buffers of the network, which has others in a trial.
    """
    places, norms = [Place(*place) for place in split.places], weight_norms(net)
    if len(split.sets) < 2 or any(len({*map(len, place.positions())}) > 1 for place in places):
        raise Inexact("both neurons split together, or in sets of different sizes")
    ratio = ratio_of(places, own) if split.coefficients[0][0] != 1 else 1.0  # only where a scale comes through
    tensors = exactness.named_tensors(net)
    twins = {place.name: copy.deepcopy(tensors[place.name]) for place in places}
    for place in [place for place in places if place.role != "reads"]:
        (first, second), twin = place.positions(), twins[place.name].data.movedim(place.axis, -1)
        twin[..., second] = twin[..., first] * ratios(place, ratio, norms).to(twin)
    merge = split._replace(rule=MERGE, coefficients=[[1.0, 0.0, 1.0, ratio]])
    shrunk = [[(before, (3 * before - after) // 2) for before, after in sizes] for sizes in grown]  # both sets split
    with exactness.replaced_tensors(net, twins):
        before = [out for call in check.calls for out in exactness.outputs_of(call())]
        check = check._replace(before=before, before_in_training=[])
        return try_split(net, merge, check, eps, *shrunk)
