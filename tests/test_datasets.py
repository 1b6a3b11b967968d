import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.core.seeds import PURPOSES
from neuronsplit.data import download
from neuronsplit.data.datasets import DATASETS, Dataset, Subset, fingerprint, load_dataset

HAS_FASHION_MNIST = (download.FOLDER / "FashionMNIST" / "raw").exists()
needs_fashion_mnist = pytest.mark.skipif(
    not HAS_FASHION_MNIST, reason="Fashion-MNIST is not on this machine (make run downloads it)"
)


def test_digits_are_three_disjoint_sets_on_one_scale():
    digits = load_dataset("digits")
    assert [len(subset.labels) for subset in digits[:3]] == [1200, 297, 300]
    for subset in digits[:3]:
        assert subset.images.min() == -0.5 and subset.images.max() == 0.5
        assert subset.labels.unique().tolist() == list(range(10))
    rows = torch.cat([subset.images for subset in digits[:3]])
    from sklearn.datasets import load_digits

    expected = torch.from_numpy(load_digits().data).float() / 16 - 0.5
    assert torch.equal(rows.sum(1).sort().values, expected.sum(1).sort().values)


@needs_fashion_mnist
def test_fashion_mnist_is_itself_on_one_scale():
    clothes = load_dataset("fashion-mnist")
    assert [tuple(subset.images.shape) for subset in clothes[:3]] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    for subset in clothes[:3]:
        assert subset.images.min() == -0.5 and subset.images.max() == 0.5
    counts = clothes.train.labels.bincount() + clothes.validation.labels.bincount()
    assert counts.tolist() == [6000] * 10 and clothes.test.labels.bincount().tolist() == [1000] * 10
    assert clothes.classes[0] == "T-shirt/top" and clothes.classes[9] == "Ankle boot"


@needs_fashion_mnist
def test_the_data_of_2021_are_fashion_mnist_with_faulty_test_pixels_as_a_further_part():
    clothes, of_2021 = load_dataset("fashion-mnist"), load_dataset("fashion-mnist-2021")
    assert fingerprint(clothes._replace(extra_test=of_2021.extra_test)) == fingerprint(of_2021)
    images, labels = of_2021.extra_test["faulty_test"]
    torch.testing.assert_close(images, (clothes.test.images + 0.5) * 255 / 255 * 0.5)
    assert torch.equal(labels, clothes.test.labels)


def test_an_unknown_dataset_is_named():
    with pytest.raises(ValueError, match="^dataset 'cifar': allowed are fashion-mnist, .*, digits, mnist-1d$"):
        load_dataset("cifar")


def random_subset(n, seed):
    g = torch.Generator().manual_seed(seed)
    return Subset(torch.rand(n, 4, generator=g), torch.randint(3, (n,), generator=g))


def made(seed=0, **changes):
    """Return a small data set, with equal but new tensors at each call."""
    parts = {name: random_subset(n, seed + i) for i, (name, n) in enumerate([("train", 6), ("validation", 4)])}
    test = random_subset(5, seed + 2)
    dataset = Dataset(**parts, test=test, shape=(2, 2), classes=("a", "b", "c"), extra_test={"more": test.head(2)})
    return dataset._replace(**changes)


def test_a_dataset_is_loaded_once_and_a_name_registered_again_is_loaded_again(monkeypatch):
    calls = []

    def loader(seed):
        return lambda: calls.append(seed) or made(seed)

    monkeypatch.setitem(DATASETS, "mine", loader(0))
    first = load_dataset("mine")
    assert load_dataset("mine") is first and calls == [0]
    monkeypatch.setitem(DATASETS, "mine", loader(9))
    second = load_dataset("mine")
    assert load_dataset("mine") is second and calls == [0, 9]
    assert fingerprint(first) != fingerprint(second) == fingerprint(made(9))


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (torch.zeros(2, 4).double(), torch.zeros(2).long(), "has torch.float64 and torch.int64: allowed are float32"),
        (torch.zeros(2, 4), torch.zeros(2).int(), "has torch.float32 and torch.int32: allowed are float32 images"),
        (torch.zeros(2, 4), torch.zeros(3).long(), r"has shapes \(\(2, 4\), \(3,\)\): allowed are"),
        (torch.zeros(2, 5), torch.zeros(2).long(), r"has shapes \(\(2, 5\), .* with one n_in in all parts$"),
        (torch.zeros(2, 2, 4), torch.zeros(2, 2).long(), r"has shapes \(\(2, 2, 4\), "),
        (torch.zeros(0, 4), torch.zeros(0).long(), r"has shapes \(\(0, 4\), \(0,\)\)"),
        (torch.zeros(2, 4), torch.tensor([0, 3]), "has label 3: allowed are 0 to 2"),
    ],
)
def test_a_part_of_another_form_is_named(images, labels, message, monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", lambda: made(validation=Subset(images, labels)))
    with pytest.raises(ValueError, match=f"^validation {message}"):
        load_dataset("mine")


def changed(dataset):
    """The data set with a change of one kind, by its name."""
    for name in ("train", "validation", "test"):
        images, labels = getattr(dataset, name)
        other_images, other_labels = images.clone(), labels.clone()
        other_images[-1, -1] += 1e-3
        other_labels[-1] = (other_labels[-1] + 1) % 3
        yield f"a pixel of {name}", dataset._replace(**{name: Subset(other_images, labels)})
        yield f"a label of {name}", dataset._replace(**{name: Subset(images, other_labels)})
        yield f"the dtype of {name}", dataset._replace(**{name: Subset(images, labels.int())})
        yield f"one image less in {name}", dataset._replace(**{name: Subset(images[:-1], labels[:-1])})
        yield f"the order of {name}", dataset._replace(**{name: Subset(images.flip(0), labels.flip(0))})
    train, validation, test = dataset[:3]
    joined = Subset(*map(torch.cat, zip(train, validation)))
    yield "membership", dataset._replace(train=joined.head(7), validation=Subset(*(part[7:] for part in joined)))
    yield "exchanged parts", dataset._replace(validation=test, test=validation)
    yield "shape of images", dataset._replace(train=Subset(train.images.view(3, 2, 4), train.labels.view(3, 2)))
    yield "names of classes", dataset._replace(classes=("a", "b", "d"))
    yield "shape to draw", dataset._replace(shape=(1, 4))
    yield "no extra_test", dataset._replace(extra_test={})
    yield "another name in extra_test", dataset._replace(extra_test={"other": test.head(2)})
    yield "extra_test called test", dataset._replace(extra_test={"test": test.head(2)})
    yield "another further test set", dataset._replace(test=train, extra_test={"test": test.head(2)})
    yield "a pixel in extra_test", dataset._replace(extra_test={"more": Subset(test.images[:2] + 1, test.labels[:2])})


def test_the_fingerprint_changes_with_any_image_label_or_membership():
    prints = {"as it was": fingerprint(made())} | {name: fingerprint(other) for name, other in changed(made())}
    assert len(set(prints.values())) == len(prints) == 1 + 5 * 3 + 10


def test_equal_tensors_have_the_same_fingerprint_however_they_lie_in_memory():
    dataset = made()
    images, labels = dataset.train
    strided = Subset(images.mT.contiguous().mT, torch.stack([labels, labels], 1)[:, 0])
    assert not strided.images.is_contiguous() and not strided.labels.is_contiguous()
    assert fingerprint(dataset) == fingerprint(made()) == fingerprint(made(train=strided))


def test_the_fingerprint_is_the_sha256_of_names_types_shapes_and_values():
    one = Subset(torch.tensor([[0.5]]), torch.tensor([1]))
    empty = Subset(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))
    text = (
        b"((1, 1), ('a', 'b'))"
        + b"train torch.float32 (1, 1)"
        + b"\0\0\0\x3f"
        + b"train torch.int64 (1,)"
        + b"\1"
        + bytes(7)
    )
    text += b"validation torch.float32 (0, 1)validation torch.int64 (0,)test torch.float32 (0, 1)test torch.int64 (0,)"
    found = fingerprint(Dataset(one, empty, empty, (1, 1), ("a", "b")))
    assert found == hashlib.sha256(text).hexdigest()


def test_the_examples_of_seeds_are_read_off_a_pool_that_stays_where_it_is():
    """Against plain loops over seeds; two parts of one pool and their blocks take no more memory than it does."""
    images, labels, rows = torch.rand(9, 4), torch.randint(3, (9,)), torch.tensor([[8, 0, 3, 3, 5], [1, 2, 6, 7, 0]])
    subset = Subset(images, labels, rows)
    assert torch.equal(subset.images, torch.stack([torch.stack([images[i] for i in row]) for row in rows]))
    assert torch.equal(subset.labels, torch.stack([torch.stack([labels[i] for i in row]) for row in rows]))
    for part, row in zip(subset.of_seeds(), rows, strict=True):
        assert torch.equal(part.images, images[row]) and torch.equal(part.labels, labels[row])
    for block in (*subset.split(2), subset.head(3)):
        assert block.pool[0].data_ptr() == images.data_ptr() and block.pool[1].data_ptr() == labels.data_ptr()


@pytest.mark.parametrize("rows", [slice(None), slice(2, 6), torch.tensor([5, 0, 3]), torch.randint(7, (3, 5))])
def test_blocks_are_all_examples_in_their_order(rows):
    subset = Subset(torch.rand(7, 4), torch.randint(3, (7,)), rows)
    blocks = subset.split(2)
    assert [block.labels.shape[-1] for block in blocks] == [2] * (len(blocks) - 1) + [subset.labels.shape[-1] % 2 or 2]
    assert torch.equal(torch.cat([block.images for block in blocks], dim=-2), subset.images)
    assert torch.equal(torch.cat([block.labels for block in blocks], dim=-1), subset.labels)
    head = subset.head(3)
    assert torch.equal(head.images, subset.images[..., :3, :]) and torch.equal(head.labels, subset.labels[..., :3])


@given(counts=st.tuples(*[st.integers(1, 30)] * 2), seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_each_seed_draws_its_training_and_validation_examples_from_all_of_both(counts, seeds):
    """Each example is one of both, once; a seed's split is the same whatever the others are."""
    n_train, n_val = counts
    parts = {"train": random_subset(n_train, 1), "validation": random_subset(n_val, 2)}
    DATASETS["mine"] = lambda: made(**parts)
    try:
        own, whole = load_dataset("mine", seeds), load_dataset("mine")
        alone = [load_dataset("mine", [seed]) for seed in seeds]
    finally:
        del DATASETS["mine"]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts.values()))
    assert own.test is whole.test and own.extra_test is whole.extra_test and own.classes == whole.classes
    assert own.train.images.shape == (len(seeds), n_train, 4) and own.validation.labels.shape == (len(seeds), n_val)
    for s, seed in enumerate(seeds):
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index("split"),)))
        order = torch.from_numpy(order.permutation(n_train + n_val))
        assert torch.equal(own.train.images[s], images[order[:n_train]])
        assert torch.equal(own.validation.labels[s], labels[order[n_train:]])
        rows = torch.cat([own.train.rows[s], own.validation.rows[s]])
        assert rows.sort().values.tolist() == list(range(n_train + n_val))
        assert torch.equal(alone[s].train.rows[0], own.train.rows[s])


def test_seeds_copy_no_images_and_without_seeds_the_parts_are_as_they_were_made(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", made)
    whole, own = load_dataset("mine"), load_dataset("mine", [0, 1])
    assert fingerprint(whole) == fingerprint(made())
    pools = {part.pool[0].data_ptr() for part in (whole.train, whole.validation, own.train, own.validation)}
    assert len(pools) == 1
    assert whole.validation.images.data_ptr() == whole.train.images.data_ptr() + 6 * 4 * 4  # they are views
    assert not torch.equal(own.train.rows[0], own.train.rows[1])
