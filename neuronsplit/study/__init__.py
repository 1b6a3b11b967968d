"""Experiments, studies of many experiments, and their files.

A study runs on this machine in one process per core, or on a Dask cluster. The cluster needs the package
`neuronsplit[cluster]`, and its address is given on the command line:

    python -m neuronsplit run mine.yaml --folder results --scheduler tcp://host:8786

A worker is refused if it has several threads or another version of neuronsplit. If a worker is lost, its work is done
again. Workers share the folder, or they write to an address such as s3://bucket/study, gs:// or abfs://. Addresses are
those of fsspec, with s3fs, gcsfs or adlfs installed.

On SLURM, dask-jobqueue makes such a cluster. Keep this Python session open while the study runs:

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, memory="4GB", walltime="04:00:00")  # the resources of one job
    cluster.scale(jobs=32)
    print(cluster.scheduler_address)
"""

import lazy_loader

# The modules are imported when they are first used, and completion shows them.
_MODULES = "cli engines exhaustive_splits experiment extensions folders grid index kernel run status store".split()
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=_MODULES)
