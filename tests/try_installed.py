"""Try an installed package from an empty folder: a split, a dry run and a small study. `make wheel` runs this file."""

import subprocess
import sys
from pathlib import Path

import torch

import neuronsplit as ns

STUDY = "dataset: digits\npolicy: [no-split, random]\nsplits: 1\nepochs: 2\nn_seeds: 2\n"


def command(*words: str) -> str:
    """Run the command `neuronsplit` of this environment; return what it prints."""
    found = subprocess.run([Path(sys.executable).with_name("neuronsplit"), *words], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


assert Path(ns.__file__).is_relative_to(sys.prefix), f"{ns.__file__} is not the installed package"
assert not list(Path().iterdir()), "allowed is an empty folder"

net = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
images = torch.randn(6, 8)
before = net(images)
ns.split_neuron(net, "0", 2, example_inputs=images)
assert net[0].out_features == 6 and torch.allclose(net(images), before, atol=1e-5)
print("a network was split")

assert "8 missing" in command("run", "quick", "--dry-run")
print("the quick study was planned")

Path("mine.yaml").write_text(STUDY)
command("run", "mine.yaml", "--folder", "results", "--workers", "1")
assert len(ns.read_table("results/table.parquet")) == 2 * 2 * 2  # experiments, seeds, epochs
assert "data:image/png" in Path("results/report.html").read_text(encoding="utf-8")
print("a study was run, with a report")
