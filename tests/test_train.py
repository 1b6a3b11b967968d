"""The loop in which networks grow while they train. test_study.py compares its results with the reference."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.metrics import mean_metrics, per_example_metrics
from neuronsplit.growing.train import Run, grow_while_training
from neuronsplit.growing.when import SCHEDULES, Schedule, splits_due

DIGITS = load_dataset("digits")


def train(seeds, policies, growth="scaled", schedule="every-epoch", splits=2, epochs=3):
    """Train networks with 4 neurons each; return a record per epoch."""
    mlp = MLP.for_dataset(DIGITS, 4, [seed for seed in seeds for _ in policies])
    run = Run.start(mlp, seeds, "sgd", 0.05, 32)
    options = {"growth": growth, "schedule": schedule, "splits": splits, "epochs": epochs}
    return list(grow_while_training(run, DIGITS, policies, **options))


def test_mean_metrics_are_the_loss_of_torch_and_a_count():
    logits, labels = torch.randn(2, 7, 3), torch.randint(3, (2, 7))
    found = mean_metrics("x", *per_example_metrics(logits, labels))
    for r in range(2):
        assert found["x_loss"][r].item() == pytest.approx(cross_entropy(logits[r], labels[r]).item())
        n_correct = sum(int(logits[r, i].argmax() == labels[r, i]) for i in range(7))
        assert found["x_accuracy"][r].item() == pytest.approx(n_correct / 7)


def test_of_equal_logits_the_first_counts():
    _, correct = per_example_metrics(torch.zeros(1, 3, 4), torch.tensor([0, 1, 0]))
    assert correct.tolist() == [[True, False, True]]


@pytest.mark.parametrize("policies", [["random"], ["max-fire", "loss-probs", "random"]], ids="-".join)
def test_seeds_0_and_7_together_give_what_each_gives_alone(policies):
    together = train([0, 7], policies)
    for i, seed in enumerate([0, 7]):
        own = slice(i * len(policies), (i + 1) * len(policies))
        for record, alone in zip(together, train([seed], policies)):
            assert record.keys() == alone.keys()
            assert record["hidden"] == alone["hidden"] and record["parameters"] == alone["parameters"]
            assert (record["split_neuron"] is None) == (alone["split_neuron"] is None)
            if record["split_neuron"]:
                assert record["split_neuron"][own] == alone["split_neuron"]
            for name in [name for name in record if name.endswith(("_loss", "_accuracy"))]:
                torch.testing.assert_close(record[name][own], alone[name], rtol=1e-4, atol=1e-6)


def test_a_record_says_which_neurons_were_split_and_how_large_the_networks_are():
    first, second, third = train([0, 7], ["min-fire"], splits=3, schedule="all-at-half")
    assert [record["epoch"] for record in (first, second, third)] == [1, 2, 3]
    assert [record["hidden"] for record in (first, second, third)] == [4, 7, 7]
    assert first["split_neuron"] is third["split_neuron"] is None
    assert [len(names.split()) for names in second["split_neuron"]] == [3, 3]
    assert third["parameters"] == 64 * 7 + 7 + 7 * 10 + 10


@pytest.mark.parametrize("growth", GROWTHS)
def test_a_growth_that_needs_no_parent_gets_no_neurons_and_the_others_get_one_per_replica(growth, monkeypatch):
    calls, add_neuron = [], GROWTHS["zero-outgoing"].apply

    def note(mlp, optimizer, neurons, sample, rngs):
        calls.append(neurons)
        add_neuron(mlp, optimizer, None, sample, rngs)

    monkeypatch.setitem(GROWTHS, growth, GROWTHS[growth]._replace(apply=note))
    records = train([0, 7], ["max-fire"], growth, splits=1, epochs=1)
    (neurons,) = calls
    if GROWTHS[growth].needs_parent:
        assert records[0]["split_neuron"] == [str(neuron) for neuron in neurons.tolist()]
    else:
        assert neurons is None and records[0]["split_neuron"] == ["new", "new"]


def test_a_growth_sees_the_first_10000_training_images(monkeypatch):
    samples = []
    growth = GROWTHS["zero-outgoing"]._replace(apply=lambda *parts: samples.append(parts[3]))
    monkeypatch.setitem(GROWTHS, "zero-outgoing", growth)
    run = Run.start(MLP((2, 3, 4)), [0], "sgd", 0.1, 32)
    images, labels = torch.rand(10_500, 2), torch.randint(4, (10_500,))
    run.grow("zero-outgoing", None, type(DIGITS.train)(images, labels))
    assert torch.equal(samples[0].images, images[:10_000]) and torch.equal(samples[0].labels, labels[:10_000])


def test_a_schedule_that_wants_replicas_to_grow_at_different_epochs_is_refused(monkeypatch):
    limit = None
    due = Schedule(lambda epoch, losses, splits_left: int(epoch > 1 and losses[-1] > limit), data_dependent=True)
    monkeypatch.setitem(SCHEDULES, "by-loss", due)
    run = Run.start(MLP.for_dataset(DIGITS, 4, [0, 1]), [0, 1], "sgd", 0.05, 32)
    options = {"growth": "scaled", "schedule": "by-loss", "splits": 1, "epochs": 2}
    training = grow_while_training(run, DIGITS, ["random"], **options)
    limit = next(training)["val_loss"].mean().item()
    message = "^schedule 'by-loss' grows replicas at different epochs: allowed is one replica at a time$"
    with pytest.raises(ValueError, match=message):
        next(training)


def test_as_many_policies_as_replicas_of_a_seed_are_allowed():
    run = Run.start(MLP.for_dataset(DIGITS, 4, [0, 1]), [0, 1], "sgd", 0.05, 32)
    options = {"growth": "scaled", "schedule": "every-epoch", "splits": 1, "epochs": 2}
    with pytest.raises(ValueError, match=r"^policies \['random', 'max-loss'\]: allowed is one for each replica"):
        next(grow_while_training(run, DIGITS, ["random", "max-loss"], **options))


@pytest.mark.parametrize("number", [None, 0.5, -1])
def test_a_number_of_splits_that_is_none_is_named(number, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "mine", Schedule(lambda epoch, losses, splits_left: number))
    with pytest.raises(ValueError, match=f"^schedule 'mine' makes {number} splits: allowed are whole numbers from 0$"):
        splits_due("mine", 1, [[], []], 3)
