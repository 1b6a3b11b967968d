"""Studies of many experiments, and their files.

A unit of work is one run of a notebook. It trains a list of experiments with a list of seeds, and saves one Parquet
file. `03_experiment` trains experiments, the greedy choice included. A row is identified by the columns of ID_COLUMNS,
the seed and the epoch. `all_splits` trains all splits of networks, and NETWORK_KEYS, branch_type and neuron identify a
row. In both kinds of files, the column `experiment` has the experiment's id.

A study runs on this machine, one notebook per core at a time, or on a Dask cluster. The cluster needs the package
`neuronsplit[cluster]`, and its address is given on the command line:

    neuronsplit run mine.yaml --folder results --scheduler tcp://host:8786

Each thread of a worker runs one notebook at a time. Workers share the folder of the results, the study's extensions and
the data, and have the same version of this package. If a worker is lost, its work is done again.

Relative paths on the command line count from the current folder. Those among the parameters of a notebook count from
the project's folder, and those in a study file from its own.

`neuronsplit tune mine.yaml` tries 16 configurations of each experiment on seeds of their own. It writes a study of the
ones that validation picks, which can then be run.

On SLURM, dask-jobqueue makes such a cluster. Keep this Python session open while the study runs:

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, memory="4GB", walltime="04:00:00")  # the resources of one job
    cluster.adapt(maximum_jobs=32)  # they are submitted when there is work, and replaced when their time is over
    print(cluster.scheduler_address)

Results in two folders are merged by copying the files of one into the other. For an object store, copy the folder
there with its own tool, such as `aws s3 sync results s3://bucket/results`.
"""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = "batches cli executor grid progress run store tune".split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
