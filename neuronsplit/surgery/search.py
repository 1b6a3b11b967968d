"""Find a split that is exact: sets of channels are tried, the smallest first."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.attempt import Inexact, OtherRule, Search, attempt
from neuronsplit.surgery.candidates import Candidates
from neuronsplit.surgery.facts import ACROSS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.modes import in_evaluation, in_training
from neuronsplit.surgery.places import layer_axis
from neuronsplit.surgery.runs import Call, Run, require_module, require_numbers, run
from neuronsplit.surgery.sets import Sets, ways
from neuronsplit.surgery.trace import DoesNotRun, created_on, opened_kernels, trace, trace_in_training
from neuronsplit.surgery.trial_runs import Check, try_split

NOISE = 0.1  # of parameters and inputs in the check, relative to their size


def find_split(
    net: nn.Module,
    layers: Iterable[str],
    candidates: Callable[[dict[str, Tensor], Sets], Candidates],
    example_inputs: object,
    rule: str,
    rng: np.random.Generator | None,
    together: bool,
    unscaled: bool,
    trial: Callable = try_split,
) -> SplitRecord:
    """Find the first of some candidates that splits exactly; the network is as before at the end.

    layers: the names of layers. candidates: yields what may be split in them, the smallest sets first.
    trial: tries each of them. Other arguments as of `split_neuron`.
    Raises ValueError where there are none.
    """
    require_module(net)
    require_numbers(net)
    _require_parameters(net)
    device = torch.get_default_device()  # for the network's own tensors; labels are on the CPU
    noise = NOISE if SPLIT_RULES[rule].exact else 0.0  # an inexact split's change is that of the network itself

    def find(dtype: torch.dtype | None) -> SplitRecord:
        call, noisy = (exactness.call_with(net, example_inputs, device, dtype, n) for n in (0.0, noise))
        labels, channels, before, trained = _traced(net, call, layers)
        tolerance = exactness.tolerance(labels.dtypes, dtype) if SPLIT_RULES[rule].exact else float("inf")
        check = _check(net, call, noisy, before, tolerance, trained)
        search = Search(net, labels, channels, check, rule, np.random.default_rng(rng), unscaled, trial)
        return _first_exact(search, candidates, together)

    with in_evaluation(net), created_on(torch.device("cpu")):
        with suppress(DoesNotRun), exactness.in_double(net, noise):
            return find(torch.float64)
        return find(None)  # the network fixes a precision


def _require_parameters(net: nn.Module) -> None:
    """Raise ValueError where parameters are kept elsewhere."""
    for module in net.modules():
        of_class = {one.__name__ for one in type(module).__mro__}
        for wrapper in of_class & {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}:
            raise ValueError(f"{wrapper} keeps parameters of its own: allowed is the network inside, before")


def _traced(
    net: nn.Module, call: Call, names: Iterable[str]
) -> tuple[Labels, dict[str, Tensor], list[Tensor], Run | None]:
    """The labels of a run, those of some layers, its outputs, and the run in training if that is possible, but another.

    It is a second run where the first has labelled across the layers.
    """
    for mixing in (False, True):
        labels = Labels(net, mixing)
        traced = trace(net, call, labels)
        before = exactness.outputs_of(traced.out)
        trained = trace_in_training(net, call, labels, traced)
        layers = {where: layer_axis(labels, where) for where in names}
        across = [barred for why, barred in labels.barred if ACROSS in why] or [torch.empty(0, dtype=torch.long)]
        if not torch.isin(torch.cat([*layers.values()]), labels.channels.roots(torch.cat(across))).any():
            break
    differs = trained.exception is None and trained.operations != traced.operations
    return labels, layers, before, trained if differs else None


def _check(
    net: nn.Module, call: Call, noisy: Call, before: list[Tensor], tolerance: float, trained: Run | None
) -> Check:
    """A check on the examples, with the usual kernels, and on noise in transparent runs.

    If the network gives no finite numbers for the latter, it is on the examples as they were traced.
    before: the outputs that were traced. trained: the run in training, if the network computes something else there.
    """

    def opened() -> object:
        with opened_kernels():
            return call()

    if not before:
        raise ValueError("the network gives no numbers for the example inputs: allowed are inputs that it answers")
    on_noise = None
    with suppress(Exception):
        on_noise = exactness.outputs_of(noisy())
    if on_noise is None or not all(bool(tensor.isfinite().all()) for tensor in on_noise):
        noisy, on_noise = opened, before
    check = Check([call, noisy], exactness.outputs_of(call()) + on_noise, tolerance, call if trained else None, [])
    if trained is None or trained.is_random:
        return check
    with in_training(net):
        done = run(net, noisy, None, {})
    if done.exception is not None:
        return check
    return check._replace(in_training=noisy, before_in_training=exactness.outputs_of(done.out))


def _first_exact(
    search: Search, candidates: Callable[[dict[str, Tensor], Sets], Candidates], together: bool
) -> SplitRecord:
    """The first candidate that is exact. Raises ValueError where there is none, or only larger sets."""
    whys, of_rule, random_state = [], [], search.rng.bit_generator.state
    for sets, (neurons, masks, why) in _in_order(search, candidates, together):
        search.rng.bit_generator.state = random_state  # all sets are tried with the same coefficients
        try:
            if why is not None:
                raise Inexact(why)
            record = attempt(search, sets, neurons, masks)
        except Inexact as error:
            whys += error.args
            of_rule += error.args if isinstance(error, OtherRule) else ()
            continue
        if together or _are_alone(search, neurons, masks):
            return record
        raise ValueError(_why_larger(search, sets, masks, whys))
    if of_rule:
        raise ValueError(of_rule[0])
    why = (whys or ["no set is whole"])[0]
    where, allowed = next(iter(search.layers)), "layers that split, for which ns.splittable lists candidates"
    raise ValueError(f"{where!r} has no exact split known ({why}): allowed are {allowed}")


def _in_order(
    search: Search, candidates: Callable[[dict[str, Tensor], Sets], Candidates], together: bool
) -> Iterator[tuple[Sets, tuple]]:
    """The candidates of all ways to copy channels; if not together, those of the neurons' own channels come first."""
    found = ways(search.labels)
    for alone in (None,) if together else (True, False):
        for sets in (way() for way in found):
            for candidate in candidates(search.layers, sets):
                if together or alone == _are_alone(search, *candidate[:2]):
                    yield sets, candidate
                elif alone:
                    break  # those that follow are larger still


def _are_alone(search: Search, neurons: dict[str, list[int]], masks: list[Tensor]) -> bool:
    """Whether sets have the channels of the neurons only."""
    own = {int(search.layers[where][n]) for where, numbers in neurons.items() for n in numbers}
    return int(torch.stack(masks).any(0).sum()) <= len(own)


def _why_larger(search: Search, sets: Sets, masks: list[Tensor], whys: list[str]) -> str:
    """Why sets that are exact have other channels too. whys: why those before them are not exact."""
    split = torch.stack(masks).any(0)
    rows = sets.row_of[split[sets.in_row]]  # once for each of their channels: the largest row says most
    joined = [sets.why_row[row] for row in rows.mode().values.view(-1)] if len(rows) else []
    why = "; ".join([*joined, *whys[:1]]) or "a shape in the network holds several channels"
    n_channels = sum(int(split[channels].sum()) for channels in search.layers.values())
    others = " with those of other layers" if n_channels == 1 else ""
    return (
        f"a neuron of {next(iter(search.layers))!r} has no exact split alone ({why}): allowed is together=True, "
        f"which splits {n_channels} of its channels{others}"
    )
