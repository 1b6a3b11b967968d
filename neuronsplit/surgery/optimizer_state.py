"""Split the state of optimisers: it is scaled in the same way as the gradients that it averages."""

import gc
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
FACTORED = {"row_var": -1, "col_var": -2}  # of Adafactor: the axis over which a state is averaged


def optimizers_of(optimizer: object) -> list[torch.optim.Optimizer]:
    """Return one optimiser, several or none as a list. Raises ValueError for anything else."""
    given = [] if optimizer is None else [optimizer] if not isinstance(optimizer, Iterable) else list(optimizer)
    inner = [one for outer in given for one in getattr(outer, "__dict__", {}).values()]  # SAM and its like hold another
    given += [
        one for one in inner if isinstance(one, torch.optim.Optimizer) and all(one is not other for other in given)
    ]
    for one in given:
        if not isinstance(one, torch.optim.Optimizer):
            raise ValueError(
                f"optimizer of type {type(one).__name__}: allowed are torch.optim.Optimizer, or a list of them"
            )
        if hasattr(one, "_params"):
            raise ValueError(
                f"{type(one).__name__} keeps a list of parameters of its own: allowed are optimisers that work by "
                "param_groups"
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
    held = [{id(p) for group in one.param_groups for p in group["params"]} for one in optimizers]
    of_net = {id(parameter) for parameter in net.parameters()}
    for one, its in zip(optimizers, held):
        if not its & of_net:
            raise ValueError(
                f"{type(one).__name__} holds none of the network's parameters: allowed is the optimiser that trains it"
            )
    if optimizers:
        _require_all(optimizers, set().union(*held), of_net, old)
    return [
        {
            id(parameter): _state(one, name, parameter, edits[name], state, _exponents(one, state_exponents))
            for name, parameter in old.items()
            if parameter in one.state
        }
        for one in optimizers
    ]


def _require_all(optimizers: list, held: set[int], of_net: set[int], old: dict[str, Tensor]) -> None:
    """Raise ValueError where a changed parameter is trained by an optimiser that was not given."""
    missing = {name: p for name, p in old.items() if p.requires_grad and id(p) not in held}
    if not missing:
        return
    name, kind = next(iter(missing)), type(optimizers[0]).__name__
    if held - of_net:
        raise ValueError(f"{kind} does not hold {name!r}, but others: was an earlier split made without optimizer=?")
    for other in gc.get_objects():
        # By type(), for a weak reference may be dead.
        if issubclass(type(other), torch.optim.Optimizer) and all(other is not one for one in optimizers):
            if any(p is parameter for g in other.param_groups for p in g["params"] for parameter in missing.values()):
                raise ValueError(
                    f"{name!r} is trained by {type(other).__name__}, not given: allowed is optimizer=[all of them]"
                )


def _state(optimizer, name: str, parameter: Tensor, edits: list[TensorEdit], state: str, exponents: dict) -> dict:
    """The state of one parameter after its edits."""
    kind, new = type(optimizer).__name__, {}
    for key, value in optimizer.state[parameter].items():
        if isinstance(value, Tensor) and value.dim() == parameter.dim() > 0:
            averaged = FACTORED[key] % parameter.dim() if key in FACTORED else None  # the axis that has one entry
            if any(value.shape[a] != parameter.shape[a] for a in range(value.dim()) if a != averaged):
                raise ValueError(f"{kind} keeps {key!r}, not of the shape of {name!r}: allowed are states of its shape")
            if key not in exponents:
                raise ValueError(
                    f"{kind} keeps {key!r}, unknown here: say how it goes with state_exponents={{{key!r}: 1}} or 2"
                )
            along = [edit for edit in edits if edit.axis != averaged]
            value = apply_edits(value, along, exponents[key])
            if state == "reset" and exponents[key] is not None:
                for edit in along:
                    value = value.index_fill(edit.axis, edit.copies.to(value.device), 0)
        elif isinstance(value, list | tuple | dict) or (isinstance(value, Tensor) and value.numel() > 1):
            raise ValueError(
                f"{kind} keeps {key!r}, not of the shape of {name!r}: allowed are optimisers whose state has the "
                "shape of its parameter"
            )
        new[key] = value
    return new


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


def _exponents(optimizer: torch.optim.Optimizer, own: dict[str, int]) -> dict[str, int | None]:
    """Return the exponents of an optimiser's state; RMSprop's momentum averages gradients that are normalised."""
    normalised = {"momentum_buffer": 0} if isinstance(optimizer, torch.optim.RMSprop) else {}
    return STATE_EXPONENTS | normalised | own
