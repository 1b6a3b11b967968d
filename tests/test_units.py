"""A study is cut into units of work by its plan alone, and what is missing of them is what no file holds."""

import re
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.which import POLICIES
from neuronsplit.study.batches import MAX_NETWORKS, UNIT_SECONDS, Batch, cut_into_units, labels, missing_units

SEVEN = ["random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire"]
SEEDS = st.tuples(st.integers(0, 30), st.integers(1, 30)).map(lambda pair: tuple(range(pair[0], sum(pair))))
FIELDS = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["no-split", "stay-narrow", "greedy", *SEVEN]),
        "growth": st.sampled_from(["scaled", "even", "gradmax"]),
        "schedule": st.sampled_from(["every-epoch", "every-epoch", "plateau"]),
        "batch_size": st.sampled_from([1, 32]),  # an epoch takes a fifth of a second, or a hundredth
        "epochs": st.sampled_from([5, 100, 400]),
        "splits": st.sampled_from([2, 4]),
        "width": st.sampled_from([3, 40]),
        "learning_rate": st.sampled_from([0.1, 0.2]),
        "rate_schedule": st.sampled_from(["constant", "cosine"]),
    }
)
RATES = {
    "learning_rate": 0.1, "weight_decay": 0.1, "dropout": 0.1, "rate_schedule": "cosine", "rate_after_split": 0.1
}  # fmt: skip
BRANCHED = st.builds(ExhaustiveSplits, width=st.sampled_from([3, 20]), epochs_before=st.integers(1, 30))


def experiment_of(values):
    if values["policy"] == "greedy":
        values = values | {"growth": "scaled", "schedule": "every-epoch"}
    return Experiment(**values)


@st.composite
def plans(draw):
    """A plan in which some experiments share their seeds, and some differ in their policies or rates only."""
    kind = draw(st.sampled_from(["growing", "branched", "sweep"]))
    if kind == "branched":
        experiments = draw(st.lists(BRANCHED, min_size=1, max_size=6))
    elif kind == "growing":
        experiments = [experiment_of(values) for values in draw(st.lists(FIELDS, min_size=1, max_size=8))]
    else:
        first, policies = Experiment(batch_size=draw(st.sampled_from([1, 32]))), st.sampled_from(sorted(POLICIES))
        experiments = [replace(first, policy=p) for p in draw(st.lists(policies, min_size=1, unique=True))]
        rates = draw(st.lists(st.floats(0.1, 1), min_size=1, max_size=5, unique=True))
        experiments = [replace(e, learning_rate=rate) for e in experiments for rate in rates]
    few_seeds = draw(st.lists(SEEDS, min_size=1, max_size=2))
    return {e: draw(st.sampled_from(few_seeds)) for e in {e.canonical: e for e in experiments}.values()}


def pairs(units):
    return Counter((e, seed) for unit in units for e in unit.experiments for seed in unit.seeds)


def holding(held):
    """Tables by ids, as they are read from files, that hold pairs of an experiment and a seed."""
    seeds = {}
    for e, seed in held:
        seeds.setdefault(e.id, []).append(seed)
    return {name: pd.DataFrame({"seed": found * 2}) for name, found in seeds.items()}


@given(plans())
def test_the_units_of_a_plan_have_every_experiment_and_seed_once(plan):
    assert pairs(cut_into_units(plan)) == Counter((e, seed) for e, seeds in plan.items() for seed in seeds)


@given(plans())
def test_no_program_is_too_large_unless_it_has_one_seed(plan):
    for unit in cut_into_units(plan):
        assert pairs(unit.programs()) == pairs([unit])
        for program in unit.programs():
            n_networks = sum(e.n_networks for e in program.experiments) * len(program.seeds)
            assert n_networks <= MAX_NETWORKS or len(program.seeds) == 1
            assert len({e.group for e in program.experiments}) == 1
            if len(program.experiments) > 1:
                assert len({replace(e, policy="random", **RATES) for e in program.experiments}) == 1
                policies = {e.policy for e in program.experiments}
                assert len(policies) == 1 or policies <= {*POLICIES}


@pytest.mark.long
@given(plans(), st.randoms(use_true_random=False))
def test_what_is_missing_is_what_no_file_holds_and_units_stay_what_they_are(plan, random):
    """Units depend on the plan alone: else a result would depend, in its rounding, on what was there before."""
    units = cut_into_units(plan)
    assert units == cut_into_units(dict(plan))
    held = [pair for pair in pairs(units) if random.random() < 0.3]
    missing = missing_units(plan, holding(held))
    assert pairs(missing) + Counter(held) == pairs(units)
    for part in missing:
        assert sum(not pairs([part]) - pairs([unit]) for unit in units) == 1  # it is a part of one unit
    assert all(unit in missing for unit in units if not set(held) & set(pairs([unit])))


@pytest.mark.long
@given(plans(), st.data())
def test_a_finished_unit_leaves_the_others_as_they_are(plan, data):
    units = cut_into_units(plan)
    finished = data.draw(st.sampled_from(units))
    others = [unit for unit in units if unit != finished]
    assert missing_units(plan, holding(pairs([finished]))) == others
    assert missing_units(plan, holding(pairs(units))) == []
    assert missing_units(plan, {"of another study": pd.DataFrame({"seed": [0]})}) == units


@pytest.mark.long
@given(plans())
def test_units_have_names_for_files_of_any_system(plan):
    names = [unit.name for unit in cut_into_units(plan)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,90}", name) for name in names)


@pytest.mark.parametrize("policy", ["a/b: ½.x", "../" * 30, "x" * 300, "CON", "größe"])
def test_a_name_of_a_policy_makes_a_file_name(policy, monkeypatch):
    monkeypatch.setitem(POLICIES, policy, POLICIES["random"])
    name = Batch((Experiment(policy),), (0,)).name
    assert re.fullmatch(r"[0-9a-f]{16}", name)
    others = [Batch((Experiment("random"),), (0,)), Batch((Experiment(policy),), (1,))]
    assert name not in [other.name for other in others]


def test_what_trains_as_one_differs_in_its_policy_and_rates_alone():
    control, random, loss = (Experiment(policy) for policy in ("no-split", "random", "max-loss"))
    even, plateau, greedy = replace(random, growth="even"), replace(loss, schedule="plateau"), Experiment("greedy")
    programs = Batch((control, random, even, plateau, loss, greedy), (0, 1)).programs()
    assert programs == [
        Batch((control,), (0, 1)), Batch((random, loss), (0, 1)), Batch((even,), (0, 1)), Batch((plateau,), (0, 1)),
        Batch((greedy,), (0, 1)),
    ]  # fmt: skip
    for alone in (control, random, greedy):
        others = [replace(alone, **{name: value}) for name, value in RATES.items()]
        assert Batch((alone, *others), (0,)).programs(at_least=2) in (
            [Batch((alone, *others), (0,))], [Batch((alone, *others)[n::3], (0,)) for n in range(3)]
        )  # fmt: skip
        for changes in ({"growth": "even"}, {"state": "reset"}, {"optimizer": "adam"}, {"epochs": 40}):
            assert len(Batch((alone, replace(alone, **changes)), (0,)).programs()) == 2
    assert len(Batch((plateau, replace(plateau, **RATES)), (0,)).programs()) == 2  # they split at times of their own


def test_a_tuning_grid_of_two_seeds_is_one_program_and_a_larger_one_is_cut():
    grid = tuple(Experiment(learning_rate=rate / 100, dropout=p) for rate in range(1, 9) for p in (0, 0.1))
    assert Batch(grid, (0, 1)).programs() == [Batch(grid, (0, 1))]
    larger = tuple(replace(e, weight_decay=decay) for decay in (0, 0.1, 0.2) for e in grid)
    assert Batch(larger, (0, 1)).programs() == [
        Batch(larger[part::2], (seed,)) for part in (0, 1) for seed in (0, 1)
    ]  # fmt: skip


def test_a_large_group_is_cut_so_that_its_networks_fit():
    plan = {Experiment(policy): tuple(range(10)) for policy in SEVEN}
    assert sorted(unit.seeds for unit in cut_into_units(plan)) == [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]
    assert {len(program.experiments) for unit in cut_into_units(plan) for program in unit.programs()} == {7}


def test_groups_of_different_plans_that_have_the_same_seeds_are_not_trained_as_one():
    """Seven policies with ten seeds are cut in two, and six more policies have the seeds of the first half."""
    seven, six = sorted(POLICIES)[:7], sorted(POLICIES)[7:13]
    plan = {Experiment(policy): tuple(range(10)) for policy in seven}
    plan |= {Experiment(policy): tuple(range(5)) for policy in six}
    plan |= {Experiment(learning_rate=0.1 * n): tuple(range(5)) for n in range(1, 9)}
    programs = [program for unit in cut_into_units(plan) for program in unit.programs()]
    assert max(len(program.experiments) * len(program.seeds) for program in programs) <= MAX_NETWORKS


def test_a_small_study_makes_work_for_two_processes():
    assert [unit.seeds for unit in cut_into_units({Experiment(): tuple(range(5))})] == [(0, 2, 4), (1, 3)]
    plan = dict.fromkeys([Experiment("no-split"), *(Experiment(policy) for policy in SEVEN)], tuple(range(5)))
    units = cut_into_units(plan)
    assert len(units) == 2 and len(pairs(units)) == 40
    assert max(unit.seconds for unit in units) < 2 * min(unit.seconds for unit in units)


def programs_of_their_own(n, monkeypatch, **fields):
    """Experiments that take equally long, and of which no two train as one."""
    for i in range(n):
        monkeypatch.setitem(GROWTHS, f"growth-{i}", GROWTHS["even"])
    return [Experiment(growth=f"growth-{i}", **fields) for i in range(n)]


@pytest.mark.parametrize("n, epochs", [(500, 20), (60, 150), (9, 1000)])
def test_units_of_much_work_are_similar_and_take_a_minute_or_more(n, epochs, monkeypatch):
    """A start of a notebook's kernel takes about five seconds, so that shorter units would cost too much."""
    experiments = programs_of_their_own(n, monkeypatch, epochs=epochs, batch_size=1)
    units = cut_into_units(dict.fromkeys(experiments, (0, 1, 2)))
    seconds = sorted(unit.seconds for unit in units)
    longest_program = max(program.seconds for unit in units for program in unit.programs())
    assert sum(seconds) > 10 * UNIT_SECONDS and seconds[0] > 0.95 * UNIT_SECONDS
    assert seconds[-1] < 2 * (UNIT_SECONDS + longest_program) and seconds[-1] - seconds[0] < 1.01 * longest_program


@pytest.mark.parametrize("n", [96, 240, 500, 1100])
def test_two_or_four_processes_that_share_the_units_end_together(n, monkeypatch):
    """As units are a power of two and alike."""
    experiments = programs_of_their_own(n, monkeypatch, splits=20, epochs=80)
    units = cut_into_units(dict.fromkeys(experiments, tuple(range(10))))
    sizes = {len(unit.experiments) for unit in units}
    assert len(units) in (2, 4, 8, 16) and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("policy", ["no-split", "random", "greedy"])
def test_more_epochs_and_more_programs_take_longer(policy):
    experiment, seeds = Experiment(policy), (0, 1, 2)
    once = Batch((experiment,), seeds).seconds
    twice = Batch((replace(experiment, epochs=2 * experiment.epochs),), seeds).seconds
    other = replace(experiment, optimizer="adam")
    assert once > 0 and twice == pytest.approx(2 * once)
    assert Batch((experiment, other), seeds).seconds == pytest.approx(2 * once)


def test_labels_are_those_of_reports():
    plan = [Experiment("no-split"), Experiment("random", growth="even"), Experiment("random", width=5)]
    assert list(labels(dict.fromkeys(plan, (0,))).values()) == [
        "no-split · width 10", "even · width 10", "scaled · width 5",
    ]  # fmt: skip
    assert list(labels({Experiment("max-fire"): (0,)}).values()) == ["max-fire"]
    assert list(labels({ExhaustiveSplits(width=4): (0,), ExhaustiveSplits(width=5): (0,)}).values()) == [
        "sgd 0.05 · scaled · width 4, after 5 epochs",
        "sgd 0.05 · scaled · width 5, after 5 epochs",
    ]
