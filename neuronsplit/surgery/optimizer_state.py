"""Split the state of an optimiser: it is scaled in the same way as the gradients that it averages."""

import torch
from torch import Tensor, nn

from neuronsplit.surgery.edits import TensorEdit, apply_edits

STATE_EXPONENTS = {  # the power of the gradient that a state goes with; None: it goes as the parameter itself
    "momentum_buffer": 1, "exp_avg": 1, "exp_inf": 1, "grad_avg": 1, "prev": 1,  # SGD, Adam, Adamax, RMSprop, Rprop
    "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2,  # Adam, RMSprop, Adadelta, Adagrad
    "acc_delta": 0, "step_size": 0,  # Adadelta, Rprop
    "ax": None,  # ASGD
}  # fmt: skip


def split_state(
    optimizer: torch.optim.Optimizer,
    net: nn.Module,
    old: dict[str, Tensor],
    edits: dict[str, list[TensorEdit]],
    state_exponents: dict[str, int],
) -> dict[str, dict]:
    """The optimiser's state of each new parameter, by the parameter's name.

    old: the tensors before the split, by name. state_exponents: those of an optimiser that is not torch's own.
    Raises ValueError for a state that is not covered here.
    """
    kind, exponents, state = type(optimizer).__name__, _exponents(optimizer, state_exponents), {}
    if hasattr(optimizer, "_params"):
        raise ValueError(
            f"{kind} keeps a list of parameters of its own: allowed are optimisers that work by param_groups"
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not held & {id(parameter) for parameter in net.parameters()}:
        raise ValueError(f"{kind} holds none of the network's parameters: allowed is the optimiser that trains it")
    strangers = held - {id(parameter) for parameter in net.parameters()}
    for name, parameter in old.items():
        if strangers and parameter.requires_grad and id(parameter) not in held:
            raise ValueError(
                f"{kind} does not hold {name!r}, but others: was an earlier split made without optimizer=?"
            )
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                if key not in exponents:
                    raise ValueError(
                        f"{kind} keeps {key!r}, unknown here: say how it goes with state_exponents={{{key!r}: 1}} or 2"
                    )
                value = apply_edits(value, edits[name], exponents[key])
            elif isinstance(value, list | tuple | dict) or (isinstance(value, Tensor) and value.numel() > 1):
                raise ValueError(
                    f"{kind} keeps {key!r}, not of the shape of {name!r}: allowed are optimisers whose state has the "
                    "shape of its parameter"
                )
            state.setdefault(name, {})[key] = value
    return state


def _exponents(optimizer: torch.optim.Optimizer, own: dict[str, int]) -> dict[str, int | None]:
    """Return the exponents of an optimiser's state; RMSprop's momentum averages gradients that are normalised."""
    normalised = {"momentum_buffer": 0} if isinstance(optimizer, torch.optim.RMSprop) else {}
    return STATE_EXPONENTS | normalised | own
