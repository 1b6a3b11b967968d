"""Measure how many layers of networks that others wrote `split_neuron` splits exactly.

    python tests/benchmarks/bench_coverage.py [--quick] [origin ...]

An origin is small, torchvision, timm or transformers, or one of their networks as in small/gcn. --quick tries first
channels only, and takes no steps. The rows of each network are kept in runs/coverage under the commit, and a run that
was stopped goes on from there. A whole origin takes the place of its rows in the table, which says how it was tried.

Every layer of every network is tried, with its first channel and one in the middle, and with the set that it needs.
The check is made here anew: in float64, on other inputs than those that the split saw. Then follow five steps.

- The split of the rule "outgoing" takes five steps of Adam with the optimiser that was passed: the loss stays finite.
- The split of the rule "even" takes five of SGD, and the function stays that of the unsplit network whose entries have
  rates of their own. Let θ' = Eθ be the split parameters. As f'(Eθ) = f(θ) and twins have equal gradients, a step with
  the rate η of θ' is one with η / |Eᵢ|² of θᵢ. |Eᵢ|² is 2 for what is copied, and ½ for what the copies share.
"""

import copy
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import provenance, read_table, write_bytes, write_table
from neuronsplit.locations import ROOT
from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.noted_sizes import weight_norms
from neuronsplit.surgery.split_neuron import replay, split_neuron
from neuronsplit.surgery.trace import tensors_of

sys.path.insert(1, str(ROOT / "tests"))
from zoo import public, small  # noqa: E402

FILE, RUNS = ROOT / "figures" / "data" / "coverage.parquet", ROOT / "runs" / "coverage"
ORIGINS = {"small": small.networks, "torchvision": public.torchvision_networks, "timm": public.timm_networks,
           "transformers": public.transformers_networks}  # fmt: skip
NO_EXACT_SPLIT = small.NO_EXACT_SPLIT | public.NO_EXACT_SPLIT
EXACT, EXACT_IN_FLOAT32, AFTER_STEPS = 1e-9, 1e-6, 1e-9  # relative
OUTPUT = "in the network's output"


class Case(NamedTuple):
    """A network in float64 with some training behind it, and what it is called with."""

    make: Callable  # builds another one
    net: nn.Module
    adam: torch.optim.Optimizer
    seen: object  # the inputs that the split sees
    other: object
    tolerance: float
    idle: set[str]  # parameters that no output depends on


def call(net: nn.Module, inputs: object) -> list[Tensor]:
    """The floating-point outputs of a network."""
    out = net(**inputs) if isinstance(inputs, dict) else net(*inputs) if isinstance(inputs, tuple) else net(inputs)
    return [t for t in tensors_of(out) if t.is_floating_point()]


def loss_of(net: nn.Module, inputs: object) -> Tensor:
    """The mean square of the finite outputs; the number 0 where there are none."""
    outputs = [t[t.isfinite()] for t in call(net, inputs)]
    return sum(t.square().mean() for t in outputs if t.numel() and t.requires_grad)


def relative_change(net: nn.Module, before: list[Tensor], inputs: object) -> float:
    """The largest change of an output, relative to its largest number."""
    with torch.no_grad():
        after = call(net, inputs)
    if [t.shape for t in before] != [t.shape for t in after]:
        return float("inf")
    changes = [((a - b).nan_to_num(0, 0, 0).abs().max() / b.nan_to_num(0, 0, 0).abs().max().clamp(min=1e-300)).item()
               for a, b in zip(after, before) if b.numel()]  # fmt: skip
    if any(not torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(after, before)):
        return float("inf")
    return max(changes)


class _Precision(TorchDispatchMode):
    """Notes whether anything is computed with less than double precision."""

    single = False

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        of = [t for t in tensors_of(out) if t.is_floating_point() and t.dtype != torch.float64]
        self.single |= any(t.numel() > 1 for t in of)
        return out


def prepared(make: Callable) -> Case:
    """Build a network and two kinds of inputs; nothing in it is 0 or 1 by its initialisation."""
    doubled = lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t  # noqa: E731
    torch.manual_seed(1)
    other = tree_map(doubled, make()[1])
    torch.manual_seed(0)
    net, seen = make()
    net, seen = net.double().eval(), tree_map(doubled, seen)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() < 2 or not parameter.std() > 1e-3:
                parameter.mul_(torch.rand_like(parameter) + 0.5).add_(0.1 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.5 * torch.rand_like(buffer))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    with _Precision() as precision:
        loss_of(net, seen).backward()
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    idle = {name for name, p in net.named_parameters() if name in trained and p.grad is None}
    adam.step()
    adam.zero_grad()
    net.train()  # some networks keep what follows from their parameters until they are in training again
    net.eval()
    return Case(make, net, adam, seen, other, EXACT_IN_FLOAT32 if precision.single else EXACT, idle)


def copied(case: Case) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of the network and its optimiser, built anew where it holds tensors that have a graph."""
    try:
        return copy.deepcopy((case.net, case.adam))
    except RuntimeError:
        again = prepared(case.make)
        return again.net, again.adam


def layers_of(net: nn.Module) -> Iterator[tuple[str, str]]:
    """The layers with channels: their names as `split_neuron` takes them, and a parameter of each."""
    found = {}
    for name, parameter in net.named_parameters():
        owner, _, entry = name.rpartition(".")
        if ".parametrizations." in f".{name}":
            owner = f".{name}".partition(".parametrizations.")[0][1:]
        module = net.get_submodule(owner)
        recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase)
        whole = recurrent or is_parametrized(module) or entry in ("weight", "weight_v")
        if parameter.dim() >= 2 and (whole or sum(size > 1 for size in parameter.shape) > 1):
            found.setdefault(owner if whole else name, name)
    yield from found.items()


def five_steps(net: nn.Module, inputs: object, optimizer: torch.optim.Optimizer) -> float:
    """The loss after five steps, NaN where a step makes it so."""
    for _ in range(5):
        net.train()
        net.eval()
        optimizer.zero_grad()
        loss = loss_of(net, inputs)
        if not isinstance(loss, Tensor):
            return np.nan
        loss.backward()
        optimizer.step()
    loss = loss_of(net, inputs)
    return float(loss) if isinstance(loss, Tensor) else np.nan


def rates_of(case: Case, records: list[SplitRecord]) -> dict[str, Tensor]:
    """The rate 1 / |Eᵢ|² of each entry of each parameter, found by splits of networks that hold ones and numbers."""
    (ones, _), (numbers, _) = copied(case), copied(case)
    with torch.no_grad():
        for one, number in zip(ones.parameters(), numbers.parameters()):
            one.fill_(1.0)
            number.copy_(torch.arange(1.0, number.numel() + 1).view(number.shape))
    replay(records, ones)
    replay(records, numbers)
    rates, scaled = {}, dict(ones.named_parameters())
    for name, number in numbers.named_parameters():
        scale, old = scaled[name].detach().flatten(), case.net.get_parameter(name)
        source = (number.detach().flatten() / scale).round().long() - 1
        rates[name] = 1 / torch.zeros(old.numel(), dtype=scale.dtype).index_add_(0, source, scale**2).view(old.shape)
    return rates


def change_after_sgd(case: Case, record: SplitRecord) -> float:
    """How far an even split and the network without it are apart after five steps of SGD."""
    (net, _), (twins, _) = copied(case), copied(case)
    gain = record.coefficients[0][0]  # 1 by the rule "outgoing", but for twins that share a sum evenly
    even = record._replace(coefficients=[[gain, gain, 0.5 / gain, 0.5 / gain] for _ in record.coefficients])
    replay([even], twins)
    rates = rates_of(case, [even])
    loss_of(net, case.seen).backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    rate = 1e-2 / max(torch.cat([g.flatten() for g in gradients]).norm().item(), 1e-6)
    five_steps(twins, case.seen, torch.optim.SGD(_trained(twins), lr=rate))
    for _ in range(5):
        net.train()
        net.eval()
        net.zero_grad()
        loss_of(net, case.seen).backward()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    parameter.sub_(rate * rates[name] * parameter.grad)
    with torch.no_grad():
        return relative_change(twins, call(net, case.other), case.other)


def _trained(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


def tried(case: Case, where: str, neuron: int, steps: bool) -> dict:
    """A row of the table for one channel, without what it is of."""
    net, adam = copied(case)
    row = {"neuron": neuron, "outcome": "split", "set_size": 0, "change": np.nan, "after_sgd": np.nan, "reason": ""}
    try:
        record = split_neuron(net, where, neuron, example_inputs=case.seen, optimizer=adam, rule="outgoing",
                              rng=np.random.default_rng(0), together=True)  # fmt: skip
    except ValueError as error:
        return row | {"outcome": "output" if OUTPUT in str(error) else "refused", "reason": str(error)}
    except Exception as error:  # of the tracer, which must not raise anything else
        return row | {"outcome": "raised", "reason": f"{type(error).__name__}: {error}"}
    with torch.no_grad():
        row["change"] = relative_change(net, call(case.net, case.other), case.other)
    of_layer = [place for place in record.places if place[0] in (where, f"{where}.weight")] or record.places
    row["set_size"] = max(sum(last - first for run in place[4] for first, last in run) for place in of_layer)
    if not row["change"] <= case.tolerance:
        return row | {"outcome": "wrong", "reason": "inexact on other inputs"}
    if steps:
        if not np.isfinite(five_steps(net, case.seen, adam)):
            return row | {"outcome": "wrong", "reason": "not finite after five steps of Adam"}
        of_mean = any(place[2] == "mean" for place in record.places)  # one more channel has other gradients
        if of_mean or not weight_norms(case.net).keys().isdisjoint(place[0] for place in record.places):
            return row | {"record": record}  # θ' = Eθ does not hold for g
        row["after_sgd"] = change_after_sgd(case, record)
        if not row["after_sgd"] <= max(AFTER_STEPS, 100 * case.tolerance):
            return row | {"outcome": "wrong", "reason": "other than without the split after five steps of SGD"}
    return row | {"record": record}


def _tried_or_error(case: Case, where: str, neuron: int, steps: bool) -> dict:
    """A row as of `tried`, or why the network could not be tried, which says nothing of the split."""
    try:
        return tried(case, where, neuron, steps)
    except Exception as error:  # of the network's own: in the copy, the other inputs or the steps
        row = {"neuron": neuron, "outcome": "error", "set_size": 0, "change": np.nan, "after_sgd": np.nan}
        return row | {"reason": f"{type(error).__name__}: {error}"}


def measured(origin: str, name: str, make: Callable, quick: bool) -> list[dict]:
    """The rows of one network, from the file of an earlier run of this commit where there is one."""
    commit = circumstances()["commit"] or "no-commit"
    file = RUNS / commit / ("quick" if quick else "whole") / origin / f"{name.replace('/', '+')}.json"
    if file.exists() and not commit.endswith(("dirty", "no-commit")):
        return json.loads(file.read_text())
    try:
        rows = list(rows_of(origin, name, make, quick))
    except Exception as error:  # it is not built, or does not train
        nothing = {"layer": "", "neuron": 0, "outcome": "error", "set_size": 0, "change": np.nan, "after_sgd": np.nan}
        why = {"reason": f"{type(error).__name__}: {error}", "seconds": np.nan}
        rows = [{"origin": origin, "network": name} | nothing | why]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(json.dumps(rows).encode(), file)
    return rows


def rows_of(origin: str, name: str, make: Callable, quick: bool = False) -> Iterator[dict]:
    """The rows of one network: one a layer; the worse of its two channels counts."""
    case = prepared(make)
    for where, parameter in layers_of(case.net):
        start = time.perf_counter()
        row = _tried_or_error(case, where, 0, steps=not quick)
        record = row.pop("record", None)
        if not quick and record is not None and (middle := _middle(case.net, where, parameter, record)):
            second = _tried_or_error(case, where, middle, steps=False)
            if (there := re.search(r"whole numbers from 0 to (\d+)$", second["reason"])) is not None:  # several of one
                second = _tried_or_error(case, where, int(there[1]) // 2, steps=False)
            row = row if second.pop("record", None) else second
        if row["outcome"] == "refused" and parameter in case.idle:
            row["outcome"] = "idle"
        if row["outcome"] == "refused" and (name, where) in NO_EXACT_SPLIT:
            row |= {"outcome": "none", "reason": NO_EXACT_SPLIT[name, where]}
        yield {"origin": origin, "network": name, "layer": where} | row | {"seconds": time.perf_counter() - start}


def _middle(net: nn.Module, where: str, parameter: str, record: SplitRecord) -> int:
    module = None if where == parameter else net.get_submodule(where)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return module.hidden_size // 2
    shape = dict(net.named_parameters())[parameter].shape
    sizes = [shape[axis] for of, axis, role, *_ in record.places if of == parameter and role != "reads" and shape]
    return sizes[0] // 2 if sizes else 0


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """By origin: networks, layers, and how many of those that have an exact split are split."""
    counts = table.pivot_table(index="origin", columns="outcome", values="layer", aggfunc="count", fill_value=0)
    counts.insert(0, "networks", table.groupby("origin").network.nunique())
    counts.loc["all"] = counts.sum()
    possible = sum(counts.get(outcome, 0) for outcome in ("split", "refused", "raised", "wrong"))
    return counts.assign(share=counts.get("split", 0) / possible)


def report(rows: list[dict]) -> None:
    """Print the layers of one network that were not split, those with one reason together."""
    of_reason: dict[str, list[str]] = {}
    for row in rows:
        if row["outcome"] != "split":
            reason = row["reason"].replace(f"{row['layer']!r} has no exact split known", "")
            reason = row["outcome"] if row["outcome"] in ("output", "idle") else f"{row['outcome']} {reason[:300]}"
            of_reason.setdefault(reason, []).append(f"{row['layer']}[{row['neuron']}]")
    for reason, layers in of_reason.items():
        print(f"    {reason}: {', '.join(layers)}", flush=True)


def write(table: pd.DataFrame, circumstances_of: dict[str, dict]) -> None:
    """Write whole origins in the place of their rows, with how and when each of them was measured."""
    if FILE.exists():
        before, kept = read_table(FILE), provenance(FILE)["parameters"]
        of_kept = {origin: kept[origin] for origin in before.origin.unique() if origin in kept}
        circumstances_of = of_kept | circumstances_of
        table = pd.concat([before[~before.origin.isin(table.origin)], table], ignore_index=True)
    numbers = {name: "float32" for name in ("change", "after_sgd", "seconds")}
    parameters = {"study": "coverage", "parameters": circumstances_of}
    write_table(table.astype(numbers), FILE, parameters | circumstances())


def main(chosen: list[str]) -> None:
    """Measure the chosen origins or networks; whole origins are written."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    quick, chosen = "--quick" in chosen, [one for one in chosen if one != "--quick"]
    rows, whole = [], [origin for origin in chosen or ORIGINS if origin in ORIGINS]
    for origin in dict.fromkeys(one.partition("/")[0] for one in chosen or ORIGINS):
        for name, make in ORIGINS[origin]().items():
            if origin in whole or f"{origin}/{name}" in chosen:
                start = time.perf_counter()
                rows += (found := measured(origin, name, make, quick))
                outcomes = ", ".join(f"{n} {what}" for what, n in Counter(row["outcome"] for row in found).items())
                print(f"{origin}/{name}: {outcomes} ({time.perf_counter() - start:.1f} s)", flush=True)
                report(found)
    table = pd.DataFrame(rows)
    if whole:
        write(table[table.origin.isin(whole)], {origin: {"quick": quick} | circumstances() for origin in whole})
    print(shares(table).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main(sys.argv[1:])
