"""Figures from tidy tables; each function returns its Figure."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from neuronsplit import compare
from neuronsplit.study import CONTROLS, ROOT

COLOURS = {  # in the order of every legend
    # which: controls grey, loss policies warm, fire policies cool, those beyond 2021 brown, green and pink
    "no-split": "#5b5b5b", "stay-narrow": "#b3b3b3", "random": "#9b59b6",
    "max-loss": "#b2182b", "min-loss": "#ef8a1f", "loss-probs": "#d684a8",
    "max-fire": "#08519c", "min-fire": "#56b4e9", "half-fire": "#1b9e77",
    "max-importance": "#7f3b08", "importance-probs": "#c9a15b", "max-gradient": "#003c30", "max-variance": "#8cc63f",
    "min-eigenvalue": "#e7298a", "learned": "#000000", "greedy": "#ffb000",
    # how: exact splits, inexact ones, neurons that are no twins
    "scaled": "#9b59b6", "even": "#c7a17a", "outgoing": "#1f77b4", "scaled-outgoing": "#17becf", "opposed": "#b2182b",
    "noisy": "#e6ab02", "steepest": "#e7298a", "fresh": "#1b7837", "gradmax": "#7fbf3f",
    # when
    "every-epoch": "#9b59b6", "5-every-5": "#1f77b4", "at-once": "#b2182b", "at-first": "#ef8a1f",
    "at-tenth": "#e6ab02", "plateau": "#1b7837",
}  # fmt: skip
MARKERS = "osD^vP"
TITLES = {
    "train_loss": "train loss", "train_accuracy": "train accuracy",
    "val_loss": "validation loss", "val_accuracy": "validation accuracy",
    "test_loss": "test loss", "test_accuracy": "test accuracy", "parameters": "parameters",
}  # fmt: skip


def use_style() -> None:
    """The look of every figure here."""
    sns.set_theme(style="ticks", rc={"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 80})


def colour(policy: str) -> str:
    """The colour of an experiment, the same in every figure; black for one that the study does not know.

    One named by several parts, as in "random · fresh", has that of its last part with a colour.
    """
    return next((COLOURS[part] for part in reversed(policy.split(" · ")) if part in COLOURS), "black")


def keep(figure: Figure, prefix: str, name: str) -> None:
    """Save a figure as prefix + name + .png, from the project's folder; nothing where the prefix is empty."""
    if prefix:
        figure.savefig(ROOT / f"{prefix}{name}.png", dpi=110)


def together(table: pd.DataFrame, measures: list[str]) -> Figure:
    """The mean of every policy over epochs, a panel a measure."""
    figure, axes = _panels(len(measures), sharey=False)
    for axis, measure in zip(axes, measures):
        for policy, rows in table.groupby("policy", sort=False):
            axis.plot(rows.groupby("epoch")[measure].mean(), color=colour(policy), lw=1.6, label=policy)
        _epochs(axis, table)
        _scale(axis, table, measure)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(f"mean of {_repeats(table)}; {_DOTTED}", fontsize=10)
    return figure


def apart(table: pd.DataFrame, measures: list[str]) -> Figure:
    """A panel a policy and measure: every repeat thin, their mean bold, the first policy's mean dashed."""
    first, *others = table["policy"].unique()
    panels = list(product([first, *others], measures))
    figure, axes = _panels(len(panels), sharey=len(measures) == 1)
    for axis, (policy, measure) in zip(axes, panels):
        wide = table.pivot(index="epoch", columns=["policy", "seed"], values=measure)
        axis.plot(wide[policy], color=colour(policy), lw=0.7, alpha=0.5)
        axis.plot(wide[policy].mean(axis=1), color=colour(policy), lw=2)
        axis.plot(wide[first].mean(axis=1), color=colour(first), lw=1.2, ls="--")
        axis.set_title(policy, color=colour(policy), fontsize=11, weight="bold")
        _epochs(axis, table)
        _scale(axis, table, measure)
        if len(measures) == 1:
            axis.label_outer(remove_inner_ticks=False)
    dashed = f"; dashed: mean of {first}" if others else ""
    lines = f"{_repeats(table)}, thin; their mean, bold" if table["seed"].nunique() > 1 else "one repeat"
    figure.suptitle(f"{lines}{dashed}; {_DOTTED}", fontsize=10)
    return figure


def gaps(table: pd.DataFrame, measures: list[str], baseline: str) -> Figure:
    """Difference to the baseline in the same repeat over epochs: the mean and a band of one standard error."""
    figure, axes = _panels(len(measures), sharey=False, height=3.2)
    for axis, measure in zip(axes, measures):
        wide = table.pivot(index="epoch", columns=["policy", "seed"], values=measure)
        axis.axhline(0, color=colour(baseline), lw=1.6, label=baseline)
        for policy in table["policy"].unique():
            if policy == baseline:
                continue
            gap = wide[policy] - wide[baseline]
            mean, error = gap.mean(axis=1), gap.sem(axis=1)
            axis.plot(mean, color=colour(policy), lw=1.6, label=policy)
            axis.fill_between(mean.index, mean - error, mean + error, color=colour(policy), alpha=0.15, lw=0)
        _epochs(axis, table)
        axis.set_ylabel(f"{TITLES[measure]} − that of {baseline}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(f"mean of {_repeats(table)}; band: ± 1 standard error; {_DOTTED}", fontsize=10)
    return figure


def runs(tables: dict[str, pd.DataFrame], measure: str, levels: dict[str, float]) -> Figure:
    """The mean of one measure over epochs, a line a table, and published levels as dashed lines."""
    figure, axis = plt.subplots(figsize=(8.2, 3.6), layout="constrained")
    for (name, table), shade in zip(tables.items(), sns.color_palette("colorblind")):
        axis.plot(table.groupby("epoch")[measure].mean(), color=shade, lw=2, label=name)
    for (name, level), dashes in zip(levels.items(), ("--", ":")):
        axis.axhline(level, color="0.4", lw=1.2, ls=dashes, label=name)
    axis.set_xlabel("epoch")
    _scale(axis, pd.concat(tables.values()), measure)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def final_points(table: pd.DataFrame, measures: list[str]) -> Figure:
    """Final value of every repeat, a column of points a policy, with their mean as a bar."""
    last = compare.final(table)
    figure, axes = plt.subplots(
        1, len(measures), figsize=(5.6 * len(measures), 3.8), squeeze=False, layout="constrained"
    )
    for axis, measure in zip(axes.flat, measures):
        policies = last.groupby("policy", sort=False)[measure]
        for x, (policy, values) in enumerate(policies):
            axis.scatter([x] * len(values), values, color=colour(policy), s=28, alpha=0.6, lw=0)
            axis.plot(x, values.mean(), "_", color=colour(policy), ms=24, mew=2.5)
        axis.set_xticks(range(len(policies)), last["policy"].unique(), rotation=35, ha="right", rotation_mode="anchor")
        axis.set_ylabel(f"final {TITLES[measure]}")
    figure.suptitle(f"{_repeats(table)} after epoch {table['epoch'].max()}; bar: mean", fontsize=10)
    return figure


def differences(panels: dict[str, pd.DataFrame], what: str = "") -> Figure:
    """Paired differences, repeat by repeat, with their mean and its 95 % bootstrap interval, a panel a title.

    panels: title → differences as compare.paired makes them, a row a seed, a column a policy. what: said above all.
    """
    names = list(dict.fromkeys(name for found in panels.values() for name in found))
    size = (4.6 * len(panels) + 0.6, 0.36 * len(names) + 1.1)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (title, found) in zip(axes.flat, panels.items()):
        axis.axvline(0, color="0.6", lw=1)
        for policy, interval in compare.intervals(found).iterrows():
            y, shade = names.index(policy), colour(policy)
            axis.scatter(found[policy], [y + 0.27] * len(found), color=shade, s=14, alpha=0.45, lw=0)
            axis.plot([interval.low, interval.high], [y, y], color=shade, lw=3, solid_capstyle="butt")
            axis.plot(interval["mean"], y, "o", color=shade, ms=7, mec="white")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xlabel=title)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    count = max(len(found) for found in panels.values())
    text = f"mean of {count} repeats with its 95 % bootstrap interval; below it each repeat"
    figure.suptitle(f"{what}: {text}" if what else text, fontsize=10)
    return figure


def draw_intervals(axis: plt.Axes, found: pd.DataFrame, shade: str = "black") -> None:
    """Means with their intervals, as compare.intervals makes them: a row each, from above, with a line at 0."""
    ends = [found["mean"] - found["low"], found["high"] - found["mean"]]
    axis.errorbar(found["mean"], range(len(found)), xerr=ends, fmt="o", color=shade)
    axis.axvline(0, color="0.7", lw=1)
    axis.set(yticks=range(len(found)), yticklabels=found.index, ylim=(len(found) - 0.4, -0.6))


def against_cost(table: pd.DataFrame, measure: str, baseline: str) -> Figure:
    """Final values against what was spent, mean and 95 % interval: a colour a rule, a marker a schedule.

    Lines: the controls as they train. A point on the better side of the baseline's line is better than a control
    that spent as much. Points stand a little aside of their cost where they would hide one another.
    """
    table = table.assign(spent=compare.spent(compare.named(table)))
    table["spent"] /= table.loc[table["policy"] == baseline, "spent"].max()
    figure, axis = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
    near = []
    for (policy, rule, schedule), rows in table.groupby(["policy", "rule", "schedule"], sort=False):
        if policy in CONTROLS:
            mean = rows.groupby("epoch")[["spent", measure]].mean()
            axis.plot(mean["spent"], mean[measure], color=colour(policy), lw=2, label=policy, zorder=1)
        else:
            last = compare.final(rows)
            _, y, low, high = compare.intervals(last[[measure]]).loc[measure]
            marker = MARKERS[list(table["schedule"].unique()).index(schedule)]
            x, aside = last["spent"].mean(), 5 * (len(near) // 2 % 5 - 2)  # points, so that none hides another
            beside = axis.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
            style = {"fmt": marker, "color": COLOURS[rule], "ms": 7, "mec": "white", "label": f"{rule} · {schedule}"}
            axis.errorbar(x, y, [[y - low], [high - y]], transform=beside, **style)
            near += [low, high]
    margin = 0.3 * (max(near) - min(near))
    axis.set(xlabel=f"multiply-adds spent in training, share of those of {baseline}", ylabel=TITLES[measure])
    axis.set(xlim=(0.1, 1.03), ylim=(min(near) - margin, max(near) + margin))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return figure


def leads(settings: dict[str, pd.DataFrame], measure: str, baseline: str) -> Figure:
    """Lead over a baseline that has spent as much, after every epoch, a panel a setting: mean and 95 % interval.

    settings: title → a table.
    """
    size = (4.6 * len(settings) + 1.2, 3.6)
    figure, axes = plt.subplots(1, len(settings), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for axis, (title, table) in zip(axes.flat, settings.items()):
        found = compare.leads(table, measure, baseline).dropna(subset="lead")
        axis.axhline(0, color=colour(baseline), lw=1.6)
        for policy, rows in found.groupby("policy", sort=False):
            band = compare.intervals(rows.pivot(index="seed", columns="epoch", values="lead"))
            x = rows.groupby("epoch")["spent"].mean()
            axis.plot(x, band["mean"], color=colour(policy), lw=1.8, label=policy)
            axis.fill_between(
                x, band["low"].astype(float), band["high"].astype(float), color=colour(policy), alpha=0.15, lw=0
            )
        late = found.loc[found["epoch"] > found["epoch"].max() / 10, "lead"]
        axis.set(
            title=title,
            xlabel=f"multiply-adds spent, share of those of {baseline}",
            ylim=late.quantile([0.002, 0.998]).tolist(),
        )
    axes[0, 0].set_ylabel(f"{TITLES[measure]} − that of {baseline} at equal cost")
    labels = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)
    return figure


def family_trees(table: pd.DataFrame, seed: int) -> Figure:
    """Who descends from whom in one repeat, a panel a policy: a line a neuron, coloured by its founder."""
    repeat = table[table["seed"] == seed]
    splits = repeat.dropna(subset="split_neuron")
    grown = (splits if len(splits) else repeat)["policy"].unique()
    figure, axes = _panels(len(grown), sharey=True, height=3.2)
    palette = sns.color_palette("tab10")
    end = splits["epoch"].max() + 1 if len(splits) else 1
    for axis, policy in zip(axes, grown):
        tree = compare.lineage(repeat[repeat["policy"] == policy])
        _tree(axis, tree, end, {neuron: palette[founder % len(palette)] for neuron, founder in tree["founder"].items()})
        largest = tree["founder"].value_counts().iloc[0]
        axis.set_title(f"{policy}: largest family {largest} of {len(tree)}", color=colour(policy), fontsize=10)
    figure.suptitle(f"the neurons of seed {seed}: a line a neuron, from its birth; a colour a founder", fontsize=10)
    return figure


def parted_trees(trees: dict[str, pd.DataFrame], end: int) -> Figure:
    """Family trees, a panel each: a neuron coloured by the angle at epoch `end` to the one it was split off.

    trees: as compare.lineage makes them, with a column angle in degrees; NaN, grey, for a neuron of no parent.
    """
    figure, axes = _panels(len(trees), sharey=True, height=3.6)
    scale = plt.Normalize(0, max(10, max(tree["angle"].max() for tree in trees.values())))
    colours = plt.get_cmap("viridis")
    for axis, (name, tree) in zip(axes, trees.items()):
        shades = {neuron: "0.6" if np.isnan(a) else colours(scale(a)) for neuron, a in tree["angle"].items()}
        _tree(axis, tree, end, shades, lw=2.2)
        axis.set_title(f"{name}: median {tree['angle'].median():.1f}°", fontsize=10, weight="bold")
    figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=list(axes), label="angle to its parent (degrees)")
    figure.suptitle("a line a neuron, from its birth; grey: there from the start", fontsize=10)
    return figure


def _tree(axis: plt.Axes, tree: pd.DataFrame, end: float, shades: dict, lw: float = 1) -> None:
    """One family tree: a line a neuron in its shade, hanging from its parent."""
    place = {neuron: y for y, neuron in enumerate(_branches(tree))}
    for neuron, row in tree.iterrows():
        axis.plot([row["born"], end], [place[neuron]] * 2, color=shades[neuron], lw=lw)
        axis.plot([row["born"]] * 2, [place[row["parent"]], place[neuron]], color=shades[neuron], lw=lw)
    axis.set(xlabel="epoch", yticks=[], xlim=(0, end), ylim=(len(tree), -1))
    axis.spines["left"].set_visible(False)


def _branches(tree: pd.DataFrame) -> list[int]:
    """Neurons from top to bottom so that no line crosses another: after each neuron its children, youngest first."""
    children = {n: list(rows.index[::-1].drop(n, errors="ignore")) for n, rows in tree.groupby("parent")}
    order, todo = [], list(tree.index[tree["parent"] == tree.index][::-1])  # those that are nobody's twin
    while todo:
        order.append(todo.pop())
        todo.extend(reversed(children.get(order[-1], [])))
    return order


def parting(rows: pd.DataFrame, measure: str, title: str) -> Figure:
    """What became of twins, a panel an optimiser: the median of each rule's pairs, band: their middle half."""
    optimizers = rows["optimizer"].unique()
    figure, axes = plt.subplots(
        1, len(optimizers), figsize=(4 * len(optimizers) + 1, 3.3), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, optimizer in zip(axes.flat, optimizers):
        for rule, found in rows[rows["optimizer"] == optimizer].groupby("rule", sort=False):
            low, middle, high = (found.groupby("epoch")[measure].quantile(q) for q in (0.25, 0.5, 0.75))
            axis.plot(middle, color=COLOURS.get(rule, "black"), lw=1.8, ls="-" if rule in COLOURS else "--", label=rule)
            axis.fill_between(middle.index, low, high, color=COLOURS.get(rule, "black"), alpha=0.12, lw=0)
        axis.set(title=optimizer, xlabel="epochs after the split")
    axes[0, 0].set(ylabel=title, ylim=(0, None))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def against_theory(rows: pd.DataFrame) -> Figure:
    """Measured against predicted angles, a panel a number of steps, with the line where they are equal."""
    steps = rows["steps"].unique()
    figure, axes = plt.subplots(
        1, len(steps), figsize=(3.3 * len(steps), 3.4), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    fired = rows["predicted"][rows["predicted"] > 0]  # a neuron that never fires goes nowhere
    span = np.quantile(fired, [0.02, 1]) * [0.8, 1.25]
    for axis, (step, found) in zip(axes.flat, rows.groupby("steps")):
        axis.plot(span, span, color="0.4", lw=1.2)
        near = np.abs(np.log(found["kappa"]))
        points = axis.scatter(found["predicted"], found["measured"], c=near, s=16, cmap="viridis", vmin=0, vmax=1)
        axis.set(title=f"after {step} step{'s' * (step > 1)}", xlabel="predicted angle (degrees)")
        axis.set(xscale="log", yscale="log", xlim=span, ylim=span)
    axes[0, 0].set_ylabel("measured angle (degrees)")
    figure.colorbar(points, ax=list(axes.flat), label="|log κ|")
    return figure


def kappas(values: np.ndarray) -> Figure:
    """How the draws of a rule spread twins: the distribution of max(κ, 1/κ), the nearly frozen part shaded."""
    figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
    folded = np.exp(np.abs(np.log(values)))
    axis.hist(folded, bins=np.linspace(1, 4, 61), color=COLOURS["scaled"], density=True)
    axis.axvspan(1, np.exp(0.1), color="0.5", alpha=0.35, lw=0, label="|log κ| < 0.1: nearly frozen")
    axis.axvline(np.median(folded), color="black", lw=1.4, ls="--", label=f"median {np.median(folded):.2f}")
    axis.set(xlabel="max(κ, 1/κ)", ylabel="density", xlim=(1, 4))
    axis.legend(frameon=False)
    return figure


def beside_published(points: pd.DataFrame, published: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Published ranges as grey bars, and the repeats of a replay as points on them, a panel a measure.

    points: rows with `column` and the measures that `titles` names; published: (column, measure) → low and high.
    """
    figure, axes = plt.subplots(1, len(titles), figsize=(5.8 * len(titles), 3.8), squeeze=False, layout="constrained")
    columns = list(points["column"].unique())
    for axis, (measure, title) in zip(axes.flat, titles.items()):
        for x, column in enumerate(columns):
            found = points[points["column"] == column]
            low, high = published.loc[(column, measure)]
            axis.bar(x, high - low, bottom=low, width=0.7, color="0.88", label="published range" if x == 0 else None)
            axis.scatter([x] * len(found), found[measure], color=colour(found["policy"].iloc[0]), s=24, alpha=0.7, lw=0)
            axis.plot(x, found[measure].mean(), "_", color="black", ms=18, mew=2)
        axis.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_ylabel(title)
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


def mended(variants: dict[str, pd.DataFrame], measure: str, title: str) -> Figure:
    """The same columns before and after each fault is mended, a panel a variant: a point a repeat, their mean a bar."""
    figure, axes = plt.subplots(2, -(-len(variants) // 2), figsize=(11, 6.4), sharex=False, layout="constrained")
    for axis, (name, points) in zip(axes.flat, variants.items()):
        columns = list(points["column"].unique())
        for x, column in enumerate(columns):
            found = points[points["column"] == column]
            shade = colour(found["policy"].iloc[0])
            axis.scatter([x] * len(found), found[measure], color=shade, s=20, alpha=0.6, lw=0)
            axis.plot(x, found[measure].mean(), "_", color=shade, ms=20, mew=2.5)
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
        axis.set_title(name, fontsize=11, loc="left")
        axis.set_ylabel(title)
    return figure


def through_the_split(losses: pd.DataFrame, at: int, window: int) -> Figure:
    """Training losses by step, a line a column, from `window` steps before a split at step `at` to as many after."""
    figure, axis = plt.subplots(figsize=(8.2, 3.6), layout="constrained")
    near = losses.iloc[at - window : at + window]
    for (name, values), shade in zip(near.items(), ("0.6", *sns.color_palette("colorblind"))):
        width = 5 if shade == "0.6" else 1.6
        axis.plot(values.index - at, values, color=shade, lw=width, label=name)
    axis.axvline(0, color="0.3", lw=1, ls=":")
    axis.set(xlabel="steps after the split (dotted)", ylabel="loss of the mini-batch", yscale="log")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _panels(count: int, sharey: bool, height: float = 2.2) -> tuple[Figure, np.ndarray]:
    """A figure of panels, at most four a row; those left over are blank."""
    columns = min(count, 4)
    rows = -(-count // columns)
    size = (columns * (2.8 if columns > 2 else 4.4), height * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=sharey, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


_DOTTED = "dotted: the last split"


def _epochs(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Label the epochs and mark the last split."""
    axis.set_xlabel("epoch")
    splits = table.dropna(subset="split_neuron")["epoch"]
    if len(splits):
        axis.axvline(splits.max(), color="0.5", lw=1, ls=":")


def _scale(axis: plt.Axes, table: pd.DataFrame, measure: str) -> None:
    """Name the measure, and fit its axis to all but the first tenth of the epochs, which would flatten the rest."""
    axis.set_ylabel(TITLES[measure])
    values = table.loc[table["epoch"] > table["epoch"].max() / 10, measure]
    values = values[np.isfinite(values)]
    if len(values):
        margin = 0.05 * (values.max() - values.min()) or 1
        axis.set_ylim(values.min() - margin, values.max() + margin)


def _repeats(table: pd.DataFrame) -> str:
    return f"{table['seed'].nunique()} repeats"
