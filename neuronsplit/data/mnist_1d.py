"""Where MNIST-1D comes from: the package mnist1d makes it, and the folder of the data keeps it."""

import os
import random
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pooch

# This is the sha256 of the file that is kept. Its float32 values are those that were published in 2020, bit for bit.
SHA256 = "7630c0fe4282c2a9c69d576f145a7d602df88ecd4677da6ea7a2baee0e33e55c"


def ensure_mnist_1d(folder: Path) -> np.ndarray:
    """Return 4,000 + 1,000 examples for training and testing as rows of float32, (5000, 41), with the label last.

    A file in the folder holds them; if it is missing or damaged, it is made in about two seconds.
    Raises ValueError if other data than the published ones are made.
    """
    pooch.get_logger().setLevel("WARNING")  # it would print a line a file
    files = pooch.create(folder, "", registry={"mnist-1d.npy": SHA256})
    try:
        file = files.fetch("mnist-1d.npy", downloader=_make)
    except ValueError as error:
        message = f"mnist1d {version('mnist1d')} makes other data than were published: allowed is 0.0.2.post1"
        raise ValueError(message) from error
    return np.load(file, allow_pickle=False)


def _make(url: str, target: str, _: pooch.Pooch) -> None:
    """Make the file where pooch checks it before it gets its name. The global random streams stay as they are."""
    from mnist1d.data import make_dataset  # this imports matplotlib.pyplot

    states = random.getstate(), np.random.get_state()
    try:
        made = make_dataset()  # sets both seeds to 42
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    examples, labels = (np.concatenate([made[name], made[f"{name}_test"]]) for name in "xy")
    os.remove(target)  # it could be read by its owner only
    with open(target, "wb") as file:
        np.save(file, np.column_stack([examples, labels]).astype(np.float32))
