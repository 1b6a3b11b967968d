"""A network that is made of its configuration can be made of it again after a split, or the record says why not."""

import copy
import json
from dataclasses import dataclass

import pytest
import torch
from networks import outputs, relative_change, settle
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from neuronsplit.surgery.split_neuron import replay, split_neuron, widen


@dataclass
class Config:
    n_embd: int = 8
    n_head: int = 2
    n_hidden: int | None = None  # 4 n_embd
    n_layer: int = 2
    vocab_size: int = 11
    dropout: float = 0.0


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        n = config.n_embd
        self.n_head = config.n_head
        self.first, self.second = nn.LayerNorm(n), nn.LayerNorm(n)
        self.qkv, self.out = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.up, self.down = (
            nn.Linear(*size) for size in ((n, config.n_hidden or 4 * n), (config.n_hidden or 4 * n, n))
        )

    def forward(self, x):
        heads = [h.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for h in self.qkv(self.first(x)).chunk(3, -1)]
        x = x + self.out(scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(self.second(x))))


class GPT(nn.Module):
    """As people write it: everything is made of a configuration."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm, self.head = nn.LayerNorm(config.n_embd), nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, ids):
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def gpt():
    torch.manual_seed(0)
    return settle(GPT(Config())), torch.randint(11, (2, 5))


def made_again(net):
    fresh = type(net)(copy.deepcopy(net.config)).double().eval()
    fresh.load_state_dict(net.state_dict())
    return fresh


HIDDEN, WIDTH = {f"blocks.{n}.up": 64 for n in range(2)}, {"embed": 16}
HEADS = {f"blocks.{n}.qkv": 48 for n in range(2)}
GROWTHS = {  # widths, and what changes in the configuration
    "hidden layers": ([HIDDEN], {"n_hidden": 64}),
    "width and heads": ([HEADS, WIDTH], {"n_embd": 16, "n_head": 4, "n_hidden": 32}),
    "all": ([HIDDEN, HEADS, WIDTH], {"n_embd": 16, "n_head": 4, "n_hidden": 64}),
}


@pytest.mark.parametrize("name", GROWTHS)
def test_the_network_can_be_made_again_of_its_configuration(name):
    net, ids = gpt()
    before, fresh, records = outputs(net, ids), copy.deepcopy(net), []
    for widths in GROWTHS[name][0]:
        records.append(widen(net, widths, example_inputs=ids))
        assert relative_change(before, outputs(net, ids)) <= 1e-12
    assert records[-1].unsaved == ""
    assert vars(net.config) == vars(Config()) | GROWTHS[name][1]
    assert relative_change(before, outputs(made_again(net), ids)) <= 1e-12
    replay(json.loads(json.dumps(records)), fresh)
    assert vars(fresh.config) == vars(net.config) and relative_change(before, outputs(fresh, ids)) <= 1e-12


def test_what_the_configuration_cannot_express_is_said_and_it_stays():
    net, ids = gpt()
    record = split_neuron(net, "blocks.0.up", 1, example_inputs=ids, rule="even")
    assert record.unsaved == "no values of its config make blocks.1.up.weight (32, 8) together with the others"
    assert net.config == Config()


def test_a_size_that_no_shape_shows_is_found_by_the_outputs():
    """Heads are a number in the configuration alone: twice as many of them, all of the same size, twice as wide."""
    net, ids = gpt()
    widen(net, HEADS, example_inputs=ids)
    record = widen(net, WIDTH, example_inputs=ids)
    assert ["", "config.n_head", 2, 4] in record.numbers and net.config.n_head == 4


@pytest.mark.parametrize("config", [None, {"n": 5}, Config(), "small"])
def test_a_network_that_is_not_made_of_its_configuration_alone_stays(config):
    net = settle(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)))
    net.config = config
    before = copy.deepcopy(config)
    record = split_neuron(net, "0", 1, example_inputs=torch.randn(2, 5).double())
    assert net.config == before and record.unsaved == "" and not [n for n in record.numbers if "config" in n[1]]


def test_random_numbers_are_as_before():
    net, ids = gpt()
    state = torch.get_rng_state()
    split_neuron(net, "blocks.0.up", 1, example_inputs=ids, rule="even", rng=None)
    assert torch.equal(torch.get_rng_state(), state)
