from . import analysis, core, data, experiments, growing, measuring, names, plots, study, surgery
from .analysis.files import provenance, read_table
from .core.mlp import MLP
from .core.split import SPLIT_RULES
from .data.datasets import DATASETS, Dataset, Subset, load_dataset
from .experiments.experiment import Experiment, run_experiment
from .extensions import load_extensions
from .growing.how import GROWTHS, Growth
from .growing.when import SCHEDULES, Schedule
from .growing.which import POLICIES, Policy
from .surgery.merge_neurons import merge_neurons
from .surgery.neuron_scores import neuron_scores
from .surgery.split_neuron import replay, split_neuron, widen
from .surgery.splittable import splittable

__version__: str
__all__ = [
    "DATASETS", "GROWTHS", "MLP", "POLICIES", "SCHEDULES", "SPLIT_RULES", "Dataset", "Experiment", "Growth", "Policy",
    "Schedule", "Subset", "analysis", "core", "data", "experiments", "growing", "load_dataset",
    "load_extensions", "measuring", "merge_neurons", "names", "neuron_scores", "plots", "provenance",
    "read_table", "replay", "run_experiment", "split_neuron", "splittable", "study", "surgery",
    "widen",
]  # fmt: skip
