"""`Run`: training, evaluation, growth and forks, also where each seed has data of its own."""

import pytest
import reference
import torch

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.core.seeds import stream
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def started(seeds, per_seed=1, optimizer="sgd", learning_rate=0.01, width=5, batch_size=32):
    mlp = MLP((64, width, 10), [seed for seed in seeds for _ in range(per_seed)])
    return Run.start(mlp, seeds, optimizer, learning_rate, batch_size)


def tensors_of(run):
    networks = [run.mlp, *run.optimizer.state.values()]
    return [tensor for mlp in networks for tensor in (*mlp.parameters(), mlp.epochs_since_split)]


def streams_of(run):
    return [*run.order, *run.coefficients, *run.draws]


def states_of(run):
    return [rng.bit_generator.state for rng in streams_of(run)]


@each_optimizer
def test_an_epoch_equals_one_with_torch_optim(optimizer):
    digits, run = load_dataset("digits"), started([3, 8], 1, optimizer)
    nets = [reference.network(run.mlp, r) for r in range(2)]
    losses, correct = run.epoch(digits.train)
    assert losses.shape == correct.shape == (2, 1200 // 32 * 32)
    for r, seed in enumerate([3, 8]):
        permutation = torch.from_numpy(stream(seed, "order").permutation(1200))
        torch_optimizer = reference.OPTIMIZERS[optimizer](nets[r].parameters(), lr=0.01)
        expected = reference.train_epoch(nets[r], permutation, digits.train, 32, torch_optimizer)
        assert losses[r].mean().item() == pytest.approx(expected["train_loss"], rel=1e-5)
        # Rounding may decide the answer to one image.
        assert correct[r].double().mean().item() == pytest.approx(expected["train_accuracy"], abs=1.1 / 1184)
        for p, q in zip(run.mlp.parameters(), reference.parameters_of(nets[r])):
            torch.testing.assert_close(p[r], q, rtol=1e-4, atol=1e-6)
    assert (run.mlp.epochs_since_split == 1).all()


def test_the_last_partial_mini_batch_is_dropped():
    losses, correct = started([0, 1], batch_size=500).epoch(load_dataset("digits").train)
    assert losses.shape == correct.shape == (2, 1000)


def test_replicas_of_one_seed_see_the_same_mini_batches_and_learn_as_if_alone():
    digits = load_dataset("digits")
    alone, together = started([3, 4], 1, "adam", width=12), started([3, 4], 3, "adam", width=12)
    for run in (alone, together):
        run.epoch(digits.train)
    for p, q in zip(alone.mlp.parameters(), together.mlp.parameters()):
        torch.testing.assert_close(q, p.repeat_interleave(3, dim=0))


def test_evaluation_in_blocks_equals_one_pass():
    digits, run = load_dataset("digits"), started([0, 1])
    losses, correct = run.evaluate(digits.train)
    assert losses.shape == (2, 1200)  # more than one block of 1000
    for r in range(2):
        logits = reference.network(run.mlp, r)(digits.train.images)
        expected = torch.nn.functional.cross_entropy(logits, digits.train.labels, reduction="none")
        torch.testing.assert_close(losses[r], expected)
        assert torch.equal(correct[r], logits.argmax(1) == digits.train.labels)


def grown_and_trained(run):
    """A run with a history: its streams have been drawn from, and its optimiser has made steps."""
    digits = load_dataset("digits")
    run.epoch(digits.train)
    run.grow("scaled", torch.arange(run.mlp.n_replicas) % run.mlp.width, digits.train)
    for rng in run.draws:
        rng.random()
    return run


def go_on(run, neuron=2):
    """Train an epoch, grow, and train another one; return everything that was measured."""
    digits = load_dataset("digits")
    metrics = [run.epoch(digits.train)]
    run.grow("scaled", torch.full((run.mlp.n_replicas,), neuron), digits.train)
    run.grow("zero-outgoing", None, digits.train)
    metrics += [run.epoch(digits.train), run.evaluate(digits.test)]
    return [values for pair in metrics for values in pair] + [torch.tensor([rng.random() for rng in run.draws])]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@each_optimizer
def test_a_fork_goes_on_exactly_as_its_original_would(optimizer):
    run = grown_and_trained(started([3, 8], 2, optimizer))
    fork, again = run.fork([0, 1, 2, 3]), run.fork([0, 1, 2, 3])
    assert fork.seeds == [3, 8] and fork.batch_size == 32 and fork.optimizer.n_steps == run.optimizer.n_steps == 37
    assert same(go_on(fork), go_on(run)) and same(tensors_of(fork), tensors_of(run))
    assert states_of(fork) == states_of(run)
    assert same(go_on(again), go_on(grown_and_trained(started([3, 8], 2, optimizer))))


@each_optimizer
def test_some_replicas_go_on_as_they_do_among_all(optimizer):
    run = grown_and_trained(started([3, 8], 2, optimizer))
    fork = run.fork([1, 2])
    for found, expected in zip(go_on(fork), go_on(run)):
        torch.testing.assert_close(found.float(), expected[[1, 2]].float(), rtol=1e-3, atol=1e-4)
    for p, q in zip(fork.mlp.parameters(), run.mlp.parameters()):
        torch.testing.assert_close(p, q[[1, 2]], rtol=1e-3, atol=1e-4)


@each_optimizer
def test_a_fork_shares_nothing_with_its_original(optimizer):
    run = grown_and_trained(started([3, 8], 2, optimizer, torch.full((4, 1, 1), 0.01)))
    tensors, states, rates = [t.clone() for t in tensors_of(run)], states_of(run), run.optimizer.learning_rate.clone()
    fork = run.fork([0, 1, 2, 3])
    assert not {t.data_ptr() for t in tensors_of(fork)} & {t.data_ptr() for t in tensors_of(run)}
    assert not {id(rng) for rng in streams_of(fork)} & {id(rng) for rng in streams_of(run)}
    fork.optimizer.learning_rate *= 2
    go_on(fork)
    assert same(tensors_of(run), tensors) and states_of(run) == states
    assert torch.equal(run.optimizer.learning_rate, rates)


def test_a_replica_named_twice_has_two_streams_that_draw_the_same():
    run = grown_and_trained(started([3, 8]))
    fork = run.fork([0, 0, 1, 1])
    assert len({id(rng) for rng in streams_of(fork)}) == 2 + 4 + 4
    for streams in (fork.coefficients, fork.draws):
        first, second, third, fourth = (rng.random() for rng in streams)
        assert first == second != third == fourth
    fork.draws[0].random()
    assert fork.draws[0].random() != fork.draws[1].random()
    assert torch.equal(fork.mlp.weights[0][0], fork.mlp.weights[0][1])


def test_a_fork_keeps_the_rate_of_each_replica():
    rates = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]
    fork = started([3, 8], 2, "momentum", rates).fork([1, 1, 0, 3, 2, 2])
    assert torch.equal(fork.optimizer.learning_rate, rates[[1, 1, 0, 3, 2, 2]])
    same = started([3, 8], 2, "momentum", 0.25).fork([1, 2]).optimizer.learning_rate
    assert same.flatten().tolist() == [0.25, 0.25]


@pytest.mark.parametrize("replicas", [[], [0], [0, 1], [2, 0], [0, 1, 2], [0, 2, 2], [0, 4], [-1, 2], [2, 3, 0, 1]])
def test_a_fork_of_unequal_or_reordered_seeds_is_refused(replicas):
    message = "allowed are equally many of each seed, in the order of the seeds$"
    with pytest.raises(ValueError, match=message) as error:
        started([3, 8], 2).fork(replicas)
    assert str(error.value).startswith(f"replicas {replicas}: ")


def test_seeds_that_do_not_divide_the_replicas_are_refused():
    with pytest.raises(ValueError, match=r"^seeds \[0, 1\]: allowed are as many as divide the 3 replicas$"):
        Run.start(MLP((4, 3, 2), [0, 1, 2]), [0, 1], "sgd", 0.1, 8)
