"""The command line."""

import argparse
import sys

from neuronsplit import batch


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 where an experiment failed, 2 where the command was wrong."""
    parser = argparse.ArgumentParser(prog="python -m neuronsplit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a study: every experiment as a notebook, then a report")
    run.add_argument("study", help="a file of notebooks/studies, without .yaml")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], dest="changes", metavar=("NAME", "VALUE"),
        help="change one of the study's parameters, as with papermill",
    )  # fmt: skip
    run.add_argument("--workers", type=int, help="experiments at a time (one a core unless told otherwise)")
    publish = commands.add_parser("publish", help="copy a finished study's table to figures/data")
    publish.add_argument("study", help="a study that has run")
    publish.add_argument("name", help="what to call it there")
    options = parser.parse_args(arguments)
    try:
        if options.command == "publish":
            print(batch.publish(options.study, options.name))
        else:
            changes = {name: batch.number_or_text(value) for name, value in options.changes}
            folder = batch.run(options.study, changes, options.workers)
            print(f"report:  {folder / 'report.html'}\nfigures: {folder / 'figures'}\ntable:   {folder / 'table.csv'}")
    except (ValueError, OSError) as error:
        print(f"neuronsplit: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"neuronsplit: failed\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
