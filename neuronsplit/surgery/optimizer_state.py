"""Split the state of optimisers: it is scaled in the same way as the gradients that it averages."""

import gc
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from neuronsplit.surgery.edits import TensorEdit, apply_edits

STATE_EXPONENTS = {  # the power of the gradient that a state goes with; None: it goes as the parameter itself
    "momentum_buffer": 1, "exp_avg": 1, "exp_inf": 1, "grad_avg": 1, "prev": 1,  # SGD, Adam, Adamax, RMSprop, Rprop
    "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2,  # Adam, RMSprop, Adadelta, Adagrad
    "row_var": 2, "col_var": 2, "variance": 2,  # Adafactor
    "acc_delta": 0, "step_size": 0,  # Adadelta, Rprop
    "ax": None,  # ASGD
}  # fmt: skip
FACTORED = {"row_var": -1, "col_var": -2}  # of Adafactor: the axis over which a state is averaged, with one entry


def optimizers_of(optimizer: object) -> list[torch.optim.Optimizer]:
    """Return one optimiser, several or none as a list. Raises ValueError for anything else."""
    given = [] if optimizer is None else list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
    inner = [one for outer in given for one in getattr(outer, "__dict__", {}).values()]  # SAM and its like hold another
    given += [one for one in inner if isinstance(one, torch.optim.Optimizer) and id(one) not in map(id, given)]
    for one in given:
        kind = type(one).__name__
        if not isinstance(one, torch.optim.Optimizer):
            raise ValueError(f"optimizer of type {kind}: allowed are torch.optim.Optimizer, or a list of them")
        if hasattr(one, "_params"):
            raise ValueError(
                f"{kind} keeps one flat vector of all parameters: allowed is a new one, made after the split"
            )
    return given


def split_state(
    optimizers: list[torch.optim.Optimizer],
    net: nn.Module,
    old: dict[str, Tensor],
    edits: dict[str, list[TensorEdit]],
    state: str,
    state_exponents: dict[str, int],
) -> list[dict[int, dict]]:
    """The state of each optimiser for the new parameters, by the id of the old one.

    old: the tensors before the split, by name. state: "carry" or "reset". state_exponents: of states that are not
    torch's own.
    Raises ValueError for a state that is not covered here, and for a parameter that another optimiser holds.
    """
    _require_all(optimizers, net, {name: parameter for name, parameter in old.items() if parameter.requires_grad})
    split = []
    for one in optimizers:
        own = {"momentum_buffer": 0} if isinstance(one, torch.optim.RMSprop) else {}  # of gradients it has normalised
        exponents = STATE_EXPONENTS | own | state_exponents
        held = {name: parameter for name, parameter in old.items() if parameter in one.state}
        split.append({id(p): _state(one, name, p, edits[name], state, exponents) for name, p in held.items()})
    return split


def _require_all(optimizers: list[torch.optim.Optimizer], net: nn.Module, changed: dict[str, Tensor]) -> None:
    """Raise ValueError where an optimiser is of another network, or one that trains a changed parameter is missing.

    Warns where none is given though one trains the network; it may be one that is not used any more.
    """
    of_net, held = set(map(id, net.parameters())), set()
    for one in optimizers:
        held |= (own := _held(one))
        if not own & of_net:
            kind = type(one).__name__
            raise ValueError(f"{kind} holds none of the network's parameters: allowed is the optimiser that trains it")
    missing = {id(parameter): name for name, parameter in changed.items() if id(parameter) not in held}
    if missing and held - of_net:
        kind, name = type(optimizers[0]).__name__, next(iter(missing.values()))
        why = "but others, as after a split without optimizer=..."
        raise ValueError(f"{kind} does not hold {name!r}, {why}: allowed is a new one, made from net.parameters()")
    for other in _optimizers_of([parameter for parameter in changed.values() if id(parameter) in missing]):
        kind, names = type(other).__name__, [name for key, name in missing.items() if key in _held(other)]
        if optimizers:
            raise ValueError(f"{names[0]!r} is trained by {kind}, not given: allowed is optimizer=[all of them]")
        shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        allowed = "allowed are optimizer=..., or an optimiser made after the split"
        warnings.warn(f"{kind} goes on to train the old {shown}: {allowed}", stacklevel=5)
        return


def _optimizers_of(parameters: list[Tensor]) -> list[torch.optim.Optimizer]:
    """Return the optimisers, of all that there are, that hold one of some parameters."""
    holders = gc.get_referrers(*parameters) if parameters else []  # even without any, it looks through all objects
    lists = [holder for holder in holders if type(holder) is list and holder is not parameters]
    # An optimiser holds its parameters in lists of its groups. To look for those takes half as long as for optimisers.
    if not lists or not any(type(group) is dict and "params" in group for group in gc.get_referrers(*lists)):
        return []
    wanted = set(map(id, parameters))
    # By type(), for isinstance fails with a weak reference that is dead.
    found = [other for other in gc.get_objects() if issubclass(type(other), torch.optim.Optimizer)]
    return [optimizer for optimizer in found if _held(optimizer) & wanted]


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _state(
    optimizer: torch.optim.Optimizer,
    name: str,
    parameter: Tensor,
    edits: list[TensorEdit],
    state: str,
    exponents: dict[str, int | None],
) -> dict[str, object]:
    """The state of one parameter after its edits."""
    kind, new = type(optimizer).__name__, dict(optimizer.state[parameter])
    for key, value in new.items():
        averaged = FACTORED.get(key, 0) + parameter.dim()  # an axis, if it is one
        if _has_axes_of(parameter, value, averaged):
            if key not in exponents:
                raise ValueError(
                    f"{kind} keeps {key!r}, unknown here: say how it goes with state_exponents={{{key!r}: 1}} or 2"
                )
            along = [edit for edit in edits if edit.axis != averaged]
            new[key] = apply_edits(value, along, exponents[key])
            for edit in along if state == "reset" and exponents[key] is not None else []:
                new[key] = new[key].index_fill(edit.axis, edit.copies.to(value.device), 0)
        elif isinstance(value, list | tuple | dict) or (isinstance(value, Tensor) and value.numel() > 1):
            raise ValueError(f"{kind} keeps {key!r}, not of the shape of {name!r}: allowed are states of its shape")
    return new


def _has_axes_of(parameter: Tensor, value: object, averaged: int) -> bool:
    """Whether a state has an entry for each of a parameter, but for an axis over which it is averaged."""
    if not isinstance(value, Tensor) or not value.dim() == parameter.dim() > 0:
        return False
    return all(value.shape[axis] in ({1} if axis == averaged else {size}) for axis, size in enumerate(parameter.shape))


def replace_parameters(
    optimizers: list[torch.optim.Optimizer], new: dict[int, Tensor], states: list[dict[int, dict]]
) -> None:
    """Put new parameters and their states, by the id of the old ones, into optimisers."""
    for optimizer, state in zip(optimizers, states):
        for group in optimizer.param_groups:
            group["params"] = [new.get(id(parameter), parameter) for parameter in group["params"]]
        for parameter in [parameter for parameter in optimizer.state if id(parameter) in new]:
            del optimizer.state[parameter]
            optimizer.state[new[id(parameter)]] = state[id(parameter)]
