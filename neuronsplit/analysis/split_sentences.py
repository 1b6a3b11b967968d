"""Sentences about tables of all splits, computed from them, in Markdown: does the choice of the neuron matter?"""

import numpy as np
import pandas as pd

from neuronsplit.analysis import oracle, stats, wording


def summary(gains: pd.DataFrame, variances: pd.DataFrame) -> pd.DataFrame:
    """Summarise what the best split gains in every setting, after the last horizon.

    gains: what `oracle.gains` returns. variances: what `oracle.variances` returns. Both have a column `setting`.
    Returns a row per setting. Its columns are
    those of `stats.paired_tests` for the gain of the best split against a random one, corrected for all settings.
    horizon: epochs after the split. n_splits: from how many splits the best was chosen.
    shuffle_sd: the standard deviation of the validation loss that the order of the mini-batches makes.
    repeats: the rank correlation of the splits' losses between the two shuffles.
    split_gain: the loss without a split minus that with a random one.
    """
    last = gains[(gains["horizon"] == gains["horizon"].max()) & (gains["policy"] == oracle.ORACLE)]
    by_setting = last.groupby("setting", sort=False)
    per_seed = last.pivot_table(index="seed", columns="setting", values="gain", sort=False)
    result = stats.paired_tests(per_seed, "gain")
    result["horizon"], result["n_splits"] = gains["horizon"].max(), by_setting["width"].first()
    last = variances["horizon"] == gains["horizon"].max()
    shuffle = variances[last].groupby("setting")["shuffle"].mean()
    result["shuffle_sd"] = shuffle.clip(lower=0) ** 0.5
    result["repeats"], result["split_gain"] = by_setting["rank_correlation"].mean(), by_setting["split_gain"].mean()
    return result


def overall(summary: pd.DataFrame) -> str:
    """Say in how many settings the choice matters; empty for one setting; summary: what `summary` returns."""
    if len(summary) == 1:
        return ""
    n_established, n_settings = int((summary["verdict"] == "better").sum()), len(summary)
    n_above = int((summary["low"] > summary["shuffle_sd"]).sum())
    n_below = int((summary["high"] < summary["shuffle_sd"]).sum())
    lines = [
        f"**In {n_established} of {n_settings} settings the gain of the best split is established.**",
        f"It beats the noise of the mini-batches in {n_above}, and is smaller than the noise in {n_below}.",
    ]
    if (summary["verdict"] == "too few seeds").any():
        few = summary[summary["verdict"] == "too few seeds"]
        p = wording.span(few["smallest_p"].fillna(1), "{:.2g}")
        lines.append(f"In {len(few)} there are too few networks: the smallest possible p-value is {p}.")
    return "\n".join(f"- {line}" for line in lines)


def answer(row: pd.Series) -> str:
    """Say what the best split gains in a setting, and whether that is more than chance; row: one of `summary`."""
    if row["n_splits"] == 1:
        return "- A network of one neuron has one split only: there is nothing to choose."
    epochs = wording.count([int(row["horizon"])], "epoch")
    interval = f" {stats.interval(row['low'], row['high'])}" if pd.notna(row["low"]) else ""
    best = f"The best of {row['n_splits']} splits gains {stats.signed(row['mean'])}{interval} of validation loss"
    said = [f"{best} against a random one, {epochs} later (n = {row['n']:.0f}).", _established(row)]
    if pd.notna(row["shuffle_sd"]):
        said.append(
            f"The order of the mini-batches makes a standard deviation of {row['shuffle_sd']:.4f}{_noise(row)}."
        )
    if pd.notna(row["repeats"]):
        said.append(
            f"Splits end in the same order under other mini-batches to a rank correlation of {row['repeats']:.2f}."
        )
    word = "below" if row["split_gain"] > 0 else "above"
    said.append(f"A random split ends {abs(row['split_gain']):.4f} {word} the network that was not split.")
    return "\n".join(f"- {sentence}" for sentence in said)


def _noise(row: pd.Series) -> str:
    if row["low"] > row["shuffle_sd"]:
        return ": **the gain beats this noise**"
    if row["high"] < row["shuffle_sd"]:
        return ": **the gain is smaller than this noise**"
    return ", and whether the gain is larger cannot be said"


def _established(row: pd.Series) -> str:
    if row["n"] < 2:
        return "There is one network, too few for a test."
    if row["verdict"] == "too few seeds":
        p = f"{row['smallest_p']:.2g}"
        return f"With {row['n']:.0f} networks the smallest possible p-value is {p}, so **no gain can be established**."
    p = f"(p = {row['p_adjusted']:.2g})" if row["p_adjusted"] >= 0.001 else "(p < 0.001)"
    if row["verdict"] == "better":
        return f"**The choice matters**: the gain is established {p}."
    return (
        f"**No gain is established** {p}." if row["verdict"] != "worse" else f"The best split is worse by chance {p}."
    )


def left_out(table: pd.DataFrame) -> str:
    """Say how many networks of a table diverged; empty if none did."""
    keys = [*oracle.SETTING_KEYS, "seed"]
    n_all, n_left = (len(rows.drop_duplicates(keys)) for rows in (table, oracle.without_diverged(table)))
    return (
        f"{n_all - n_left} of {wording.count([n_all], 'network')} diverged and are left out." if n_left < n_all else ""
    )


def texts_of(summary: pd.DataFrame) -> pd.DataFrame:
    """Format what `summary` returns, in thousandths of validation loss."""
    thousand = summary[["mean", "low", "high", "shuffle_sd", "split_gain"]] * 1000
    columns = {
        "best split": thousand["mean"].map("{:+.2f}".format),
        "95 % interval": [stats.interval(low, high, 2) for low, high in zip(thousand["low"], thousand["high"])],
        "p (max-T)": summary["p_adjusted"].map("{:.3f}".format),
        "established": summary["verdict"].eq("better").map({True: "yes", False: "no"}),
        "shuffle (sd)": thousand["shuffle_sd"].map("{:.2f}".format),
        "repeats itself": summary["repeats"].map("{:+.2f}".format),
        "random split": thousand["split_gain"].map("{:+.2f}".format),
    }
    return pd.DataFrame(columns, index=summary.index).replace({"nan": "–", "+nan": "–"}).replace(np.nan, "–")
