"""The command line: run a study, see how far it is, and pack its table."""

import argparse
import os
import sys
import warnings

from neuronsplit.study import engines
from neuronsplit.study import run as batch
from neuronsplit.study.folders import Place, at_hand, place
from neuronsplit.study.grid import number_or_text


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 if an experiment failed, or 2 if the command was wrong."""
    warnings.showwarning = lambda message, *_: print(f"neuronsplit: {message}", file=sys.stderr)
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"neuronsplit: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"neuronsplit: failed\n{error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m neuronsplit", description=__doc__)
    commands = top.add_subparsers(required=True)
    for name, command, about in (
        ("run", run, "run a study: every experiment as a notebook, then a report"),
        ("status", status, "say which experiments of a study are done, running, failed, damaged or missing"),
    ):
        one = commands.add_parser(name, help=about)
        one.set_defaults(command=command)
        one.add_argument("study", help="a file of notebooks/studies, without .yaml, or another .yaml file")
        one.add_argument(
            "-p", nargs=2, action="append", default=[], dest="changes", metavar=("NAME", "VALUE"),
            help="change one of the study's parameters, as with papermill",
        )  # fmt: skip
        one.add_argument("--folder", type=place, help="where results go: a folder, or s3://… (default: runs/STUDY)")
        if name == "run":
            one.add_argument("--dry-run", action="store_true", help="only say what is finished and what would run")
            one.add_argument("--force", action="store_true", help="run also what is finished")
            one.add_argument("--workers", type=int, help="the number of processes (default: one per core)")
            one.add_argument("--scheduler", metavar="ADDRESS", help="run on the Dask cluster at this address instead")
    publish = commands.add_parser("publish", help="pack a finished study's table into figures/data")
    publish.set_defaults(command=lambda options: print(batch.publish(options.study, options.name)) or 0)
    publish.add_argument("study", help="a study that has run")
    publish.add_argument("name", help="what to call it there")
    return top


def run(options: argparse.Namespace) -> int:
    """Run a study."""
    if options.dry_run:
        return status(options)
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"workers {options.workers}: allowed are whole numbers from 1")
    changes, folder = changes_and_folder(options)
    batch.plan(options.study, changes)  # refused before anything is started
    workers = options.workers or os.cpu_count()
    with engines.cluster(options.scheduler) if options.scheduler else engines.local(workers) as (executor, at_once):
        batch.run(options.study, changes, folder, executor, at_once, options.force)
    for name in ("index.html", "report.html", "figures", "table.csv"):
        print(f"{name.split('.')[0] + ':':8} {folder}/{name}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print a line per experiment, then the number of experiments in each state."""
    changes, folder = changes_and_folder(options)
    _, planned, _ = batch.plan(options.study, changes)
    with at_hand(folder) as here:
        states = batch.states(planned, here)
    for experiment, state in states.items():
        print(f"{experiment.name}: {state}")
    kinds = [state.split(":")[0].split(",")[0] for state in states.values()]
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in ("done", "running", "failed", "damaged", "missing")))
    return 0


def changes_and_folder(options: argparse.Namespace) -> tuple[dict, Place]:
    """Return the parameters that are changed, and where the results are."""
    changes = {name: number_or_text(value, name) for name, value in options.changes}
    return changes, options.folder or batch.results(options.study, changes)
