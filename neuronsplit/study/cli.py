"""Run a study of experiments, or say how far it is."""

import argparse
import os
import sys
from pathlib import Path

from neuronsplit.analysis.files import read_results
from neuronsplit.analysis.wording import count
from neuronsplit.checks import MAX_COUNT, require_whole_number
from neuronsplit.locations import ROOT
from neuronsplit.study import batches, grid, progress, run, tune

COMMANDS = {"run": "Train what is missing, and report.", "status": "Say what is done, running, failed or missing."}
COMMANDS |= {"tune": "Find the best settings of each experiment, and write STUDY-tuned.yaml, a study of them."}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 if an experiment failed, or 2 if the command was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # any text can be printed, also where LC_ALL=C
    options = parser().parse_args(arguments)
    try:
        require_whole_number("workers", options.workers, 1, MAX_COUNT)
        study = grid.read_study(options.study, dict(options.changes or []))
        planned = tune.tuning_study(study, options.share) if options.command == "tune" else study
        folder = (options.folder or ROOT / "runs" / planned.name).absolute()
        if options.command == "tune":
            print(f"will write: {tune.tuned_file(study, folder)}")
        if options.command == "status" or options.dry_run:
            return _status(planned, folder, options)
        failures = run.train_missing(planned, folder, options.workers, options.scheduler)
        if options.command == "run":
            failures += run.report(study, folder)
        elif not failures:
            print(f"study:   {tune.write_tuned(study, folder, options.share)}")
        return _end(folder, failures)
    except KeyboardInterrupt:
        print("neuronsplit: interrupted; the same command goes on with what is missing", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"neuronsplit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command has options of its own."""
    one = argparse.ArgumentParser(prog="neuronsplit", description=__doc__)
    one.set_defaults(workers=1, dry_run=False, share=False)  # where a command has no such option
    commands = one.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        add = commands.add_parser(name, help=text, description=text).add_argument
        add("study", help="quick, full or another study of the package, or the path of a .yaml file")
        add("-p", nargs=2, metavar=("K", "VALUE"), action="append", dest="changes", help="set a parameter of the study")
        add("--folder", type=Path, help="where results go, from the current folder (default: in the project's runs)")
        if name != "status":
            add("--workers", type=int, default=os.cpu_count(), help="notebooks at once (default: one per core)")
            add("--dry-run", action="store_true", help="say what would run, and how long; data are loaded")
            add("--scheduler", default="", metavar="ADDRESS", help="of a Dask cluster that runs the notebooks")
        if name == "tune":
            add("--share", action="store_true", help="tune policies together: the first of them for all")
    return one


def _end(folder: Path, failures: list[str]) -> int:
    """Say what failed, and where the results of a study are; return 1 if anything failed."""
    for failure in failures:
        print(f"neuronsplit: failed: {failure}", file=sys.stderr)
    for name, file in (("report", "report.html"), ("table", "table.parquet"), ("figures", "figures")):
        if (folder / file).exists():
            print(f"{name + ':':8} {folder / file}")
    return 1 if failures else 0


def _status(study: grid.Study, folder: Path, options: argparse.Namespace) -> int:
    """Print the state of each experiment, the number in each state, and what would run."""
    tables, problems = read_results(folder) if folder.is_dir() else ({}, [])
    states, units = run.states_and_units(study, folder, tables)
    lines = [f"{name}: {states[experiment]}" for experiment, name in batches.labels(study.plan).items()]
    counts = [f"{sum(state.startswith(name) for state in states.values())} {name}" for name in progress.STATES]
    print(*lines, *(f"left alone: {problem}" for problem in problems), ", ".join(counts), sep="\n")
    if options.dry_run:
        left = sum(state != "done" for state in states.values())
        seconds = sum(unit.seconds + batches.START_SECONDS for unit in units) / min(options.workers, len(units) or 1)
        seconds += batches.REPORT_SECONDS * (options.command == "run" and bool(units))
        said = f"about {seconds / 60:.1f} minutes with {count([options.workers], 'worker')} if idle"
        print(f"would run: {count([len(units)], 'notebook')} for {count([left], 'experiment')}, {said}")
    return 0
