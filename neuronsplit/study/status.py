"""Find out how far a study is: what is done, running, failed or missing, and what is still to run."""

import platform
from pathlib import Path

import psutil

from neuronsplit.analysis.tables import metadata_file
from neuronsplit.study.experiment import Plan
from neuronsplit.study.index import outputs
from neuronsplit.study.store import PIECES, load, pieces, whole


def unfinished(planned: list[Plan], folder: Path) -> tuple[dict[Plan, list[Plan]], set[Plan]]:
    """What is still to run: the experiments that have no table, each with its pieces, and those pieces not trained.

    A damaged table is set aside and counts as none.
    """
    missing = {e: its_pieces for e, its_pieces in cut(planned).items() if load(e, folder) is None}
    parts = {piece for its_pieces in missing.values() for piece in its_pieces}
    return missing, {piece for piece in parts if load(piece, folder / PIECES) is None}


def states(planned: list[Plan], folder: Path) -> dict[Plan, str]:
    """The state of each experiment: done, missing, running and how far, damaged or failed and why; changes nothing."""
    its_pieces, parts = cut(planned), written(folder)
    epochs = epochs_done(its_pieces, folder)
    running = {e for e in planned for piece in [e, *its_pieces[e]] if any(map(alive, parts.get(piece.name, [])))}
    return {e: f"running, epoch {epochs[e]} of {e.epochs}" if e in running else state(e, folder) for e in planned}


def state(experiment: Plan, folder: Path) -> str:
    """The state of an experiment that does not run."""
    try:
        if whole(experiment, folder) is not None:
            return "done"
    except (ValueError, FileNotFoundError) as error:
        return f"damaged: {error}"
    failure = reason(folder / f"{experiment.name}.ipynb")
    return f"failed: {failure}" if failure else "missing"


def cut(planned: list[Plan]) -> dict[Plan, list[Plan]]:
    """The pieces of each experiment."""
    together = pieces(planned)
    return {e: [group[e] for group in together if e in group] for e in planned}


def written(folder: Path) -> dict[str, list[Path]]:
    """The files that processes write while they train, by the name of the experiment or piece."""
    found: dict[str, list[Path]] = {}
    for part in folder.rglob("*.part"):
        found.setdefault(part.name.split(".")[0], []).append(part)
    return found


def epochs_done(its_pieces: dict[Plan, list[Plan]], folder: Path) -> dict[Plan, int]:
    """The number of epochs that are done of each experiment, read off the tables of its pieces while they grow."""
    parts = written(folder)

    def rows(piece: Plan) -> int:
        if metadata_file(folder / PIECES / f"{piece.name}.csv").exists():
            return piece.epochs * piece.n_seeds
        found = max((lines(part) - 1 for part in parts.get(piece.name, [])), default=0)
        return min(max(found, 0), piece.epochs * piece.n_seeds)  # a table of all splits has no row per epoch

    done = {e: metadata_file(folder / f"{e.name}.csv").exists() for e in its_pieces}
    return {e: e.epochs if done[e] else sum(map(rows, cuts)) // e.n_seeds for e, cuts in its_pieces.items()}


def lines(file: Path) -> int:
    """The number of lines of a file that may be renamed meanwhile."""
    try:
        return file.read_text().count("\n")
    except FileNotFoundError:
        return 0


def alive(part: Path) -> bool:
    """Whether a process of this machine still runs that writes this file, NAME.MACHINE.PROCESS.part or .ipynb."""
    _, _, machine_and_process = part.stem.partition(".")
    machine, _, process = machine_and_process.rpartition(".")
    return machine == platform.node() and process.isdigit() and psutil.pid_exists(int(process))


def left_behind(folder: Path) -> list[Path]:
    """The files of processes of this machine that ended before they had finished writing."""
    ours = f"*-????????.{platform.node()}.*"
    files = [
        file for where in (folder, folder / PIECES) for end in ("part", "ipynb") for file in where.glob(f"{ours}.{end}")
    ]
    tables = folder.glob(f"table.{platform.node()}.*.part")
    return [file for file in [*files, *tables] if not alive(file)]


def reason(notebook: Path) -> str | None:
    """The first line of the first error in an executed notebook, or None."""
    errors = (o for o in outputs(notebook) if o["output_type"] == "error")
    return next((f"{o['ename']}: {o['evalue']}".splitlines()[0] for o in errors), None)
