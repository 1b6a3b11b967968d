"""Run a study of experiments, or say how far it is."""

import argparse
import os
import sys
from pathlib import Path

from neuronsplit.study import progress, store
from neuronsplit.study.batches import labels
from neuronsplit.study.grid import Study, read_study
from neuronsplit.study.run import missing_units, results_folder, run_study
from neuronsplit.study.status import STATES, statuses


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 if an experiment failed, or 2 if the command was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # any text can be printed, also where LC_ALL=C
    options = parser().parse_args(arguments)
    try:
        if any(0xD800 <= ord(letter) < 0xE000 for letter in str(options.folder)):  # bytes that could not be decoded
            raise ValueError(f"folder {str(options.folder)!a}: allowed are names in this locale; set PYTHONUTF8=1")
        study = read_study(options.study, dict(options.changes))
        return options.command(study, (options.folder or results_folder(study)).absolute(), options)
    except KeyboardInterrupt:
        print("neuronsplit: interrupted; the same command goes on with what is missing", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"neuronsplit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="neuronsplit", description=__doc__)
    commands = top.add_subparsers(required=True)
    for command, about in (
        (run, "train what is missing of a study, a notebook per unit of work, and report on it"),
        (status, "say which experiments of a study are done, running, failed or missing"),
    ):
        one = commands.add_parser(command.__name__, help=about, description=about)
        one.set_defaults(command=command)
        one.add_argument("study", help="quick, full or another study of the package, or the path of a .yaml file")
        change = "change one of the study's parameters, as with papermill"
        one.add_argument(
            "-p", nargs=2, action="append", default=[], dest="changes", metavar=("K", "VALUE"), help=change
        )
        one.add_argument("--folder", type=Path, help="where results go (default: runs/STUDY)")
        one.add_argument("--workers", type=int, default=os.cpu_count(), help="default: one per core")
    commands.choices["run"].add_argument("--dry-run", action="store_true", help="say what would run, and how long")
    commands.choices["run"].add_argument("--scheduler", default="", metavar="ADDRESS", help="that of a Dask cluster")
    return top


def run(study: Study, folder: Path, options: argparse.Namespace) -> int:
    """Run a study, or only say what would run."""
    if options.workers < 1:
        raise ValueError(f"workers {options.workers}: allowed are whole numbers from 1")
    if options.dry_run:
        status(study, folder, options)
        units = missing_units(study.plan, store.read_finished(folder)[0], progress.died(folder / store.UNITS))
        minutes = sum(unit.seconds for unit in units) / 60 / min(options.workers, len(units) or 1)
        print(f"would run: {len(units)} notebooks, about {minutes:.1f} minutes with {options.workers} workers")
        return 0
    failures = run_study(study, folder, options.workers, options.scheduler)
    for failure in failures:
        print(f"neuronsplit: failed: {failure}", file=sys.stderr)
    for name, file in (("report", "report.html"), ("table", "table.parquet"), ("figures", "figures")):
        if (folder / file).exists():
            print(f"{name + ':':8} {folder / file}")
    return 1 if failures else 0


def status(study: Study, folder: Path, options: argparse.Namespace) -> int:
    """Print a line per experiment, then the number of experiments in each state."""
    found, names = statuses(study, folder), labels(study.plan)
    for experiment, state in found.items():
        print(f"{names[experiment]}: {state}")
    for problem in store.read_finished(folder)[1]:
        print(f"left alone: {problem}")
    print(", ".join(f"{sum(state.startswith(name) for state in found.values())} {name}" for name in STATES))
    return 0
