"""Every arm of a study is tuned by the same budget, on seeds of its own; validation picks."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

import neuronsplit as ns
from neuronsplit.experiments import random_search
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.names import CONTROLS
from neuronsplit.study import tune
from neuronsplit.study.grid import read_study

ARMS = """
grids:
  - {policy: [no-split, stay-narrow, random, max-importance], width: 6, splits: 3}
epochs: 5
n_seeds: 3
first_seed: 10
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "arms.yaml").write_text(ARMS)
    return read_study(str(tmp_path / "arms.yaml"))


def test_every_arm_tries_as_many_configurations_with_the_same_draws(study):
    plan = tune.tuning_study(study).plan
    assert {*plan.values()} == {tuple(tune.SEEDS)}
    by_policy = {arm.policy: [one for one in plan if one.policy == arm.policy] for arm in study.plan}
    assert {len(found) for found in by_policy.values()} == {random_search.N_CONFIGURATIONS}
    shared = [[(e.learning_rate, e.weight_decay, e.dropout, e.rate_schedule) for e in found]
              for found in by_policy.values()]  # fmt: skip
    assert all(found == shared[0] for found in shared) and len({*shared[0]}) == random_search.N_CONFIGURATIONS


def test_the_ranges_are_covered_and_only_a_control_without_splits_tunes_its_width(study):
    for arm in [*study.plan, replace(next(iter(study.plan)), width=9, splits=0)]:
        found = random_search.configurations(arm)
        assert found[0] == arm and all(0.005 <= one.learning_rate <= 0.5 for one in found)
        assert {one.rate_schedule for one in found} == {"constant", "cosine"}
        assert {one.dropout for one in found} == {0, 0.1, 0.2, 0.3}
        assert min(one.weight_decay for one in found) == 0 < max(one.weight_decay for one in found) <= 1
        widths = {one.width + one.splits for one in found}
        assert widths == ({4, 9, 14, 18, 27} if not arm.splits else {9})
        if arm.policy not in CONTROLS:
            assert {one.rate_after_split for one in found} == {0.3, 1, 3}


def test_configurations_of_a_policy_train_as_one_program(study):
    found = [one for arm in study.plan if arm.policy not in CONTROLS for one in random_search.configurations(arm)]
    assert len({one.group for one in found}) == 1


def tables_with_best(study, best):
    """Tables of the tuning study, in which one configuration of each arm has the lowest validation loss."""
    tables = {}
    for arm in study.plan:
        for number, one in enumerate(random_search.configurations(arm)):
            losses = [2.0, 1.0 if number == best[arm.policy] else 1.1, 3.0]
            frames = [pd.DataFrame({"seed": seed, "val_loss": losses}) for seed in (0, 1)]
            tables[one.id] = pd.concat(frames)
    return tables


def test_validation_picks_at_its_best_epoch_and_the_study_that_is_written_is_read_again(study, tmp_path, monkeypatch):
    best = dict(zip([arm.policy for arm in study.plan], (3, 0, 7, 15)))
    monkeypatch.setattr(tune, "read_results", lambda folder: (tables_with_best(study, best), []))
    tuned = read_study(str(tune.write_tuned(study, tmp_path)))
    expected = [random_search.configurations(arm)[best[arm.policy]] for arm in study.plan]
    assert [asdict(one) for one in tuned.plan] == [asdict(one) for one in expected]
    assert {*tuned.plan.values()} == {(10, 11, 12)}


def test_policies_that_share_settings_get_those_of_the_first_of_them(study, tmp_path, monkeypatch):
    other = replace(next(arm for arm in study.plan if arm.policy == "random"), policy="max-loss", growth="even")
    study = study._replace(plan={**study.plan, other: (10, 11, 12)})
    tried = {one.policy for one in tune.tuning_study(study, share=True).plan}
    assert tried == {"no-split", "stay-narrow", "random", "max-loss"}  # the last one differs in its growth too
    best = {"no-split": 3, "stay-narrow": 0, "random": 7, "max-importance": 2, "max-loss": 5}
    monkeypatch.setattr(tune, "read_results", lambda folder: (tables_with_best(study, best), []))
    tuned = read_study(str(tune.write_tuned(study, tmp_path, share=True))).plan
    numbers = [best[arm.policy if arm.policy != "max-importance" else "random"] for arm in study.plan]
    assert [*tuned] == [random_search.configurations(arm)[number] for arm, number in zip(study.plan, numbers)]


def test_seeds_with_gaps_come_back(study, tmp_path, monkeypatch):
    study = study._replace(plan=dict.fromkeys(study.plan, (10, 11, 15, 20, 21, 22)))
    best = dict.fromkeys([arm.policy for arm in study.plan], 1)
    monkeypatch.setattr(tune, "read_results", lambda folder: (tables_with_best(study, best), []))
    plan = read_study(str(tune.write_tuned(study, tmp_path))).plan
    assert [sorted(seeds) for seeds in plan.values()] == [[10, 11, 15, 20, 21, 22]] * 4


def test_a_policy_of_ones_own_is_found_again(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import neuronsplit as ns\n"
        "from neuronsplit.growing.scores import fire_rate\n"
        "from neuronsplit.growing.which import argmax\n"
        "ns.POLICIES['tuned-own'] = ns.Policy(fire_rate, argmax)\n"
    )
    (tmp_path / "mine.yaml").write_text("policy: tuned-own\nextensions: own.py\n")
    try:
        study = read_study(str(tmp_path / "mine.yaml"))
        monkeypatch.setattr(tune, "read_results", lambda folder: (tables_with_best(study, {"tuned-own": 2}), []))
        (tmp_path / "results").mkdir()
        tuned = read_study(str(tune.write_tuned(study, tmp_path / "results")))
        assert tuned.extensions == study.extensions
        assert [*tuned.plan] == [random_search.configurations(arm)[2] for arm in study.plan]
    finally:
        ns.POLICIES.pop("tuned-own", None)


def test_a_seed_that_diverged_is_never_picked():
    table = pd.DataFrame({"seed": [0, 0, 1, 1], "val_loss": [0.5, 0.4, np.nan, np.nan]})
    assert tune.score(table) == np.inf
    assert tune.score(table.fillna(0.6)) == pytest.approx(0.5)


def test_what_cannot_be_tuned_is_refused(study):
    arm = Experiment()
    with pytest.raises(ValueError, match="^16 configurations of 'no-split' are missing: run the same command again$"):
        tune.best_configurations(study, {})
    with pytest.raises(ValueError, match="^seeds of 'arms': allowed are those below 1000000, which are not used to"):
        tune.tuning_study(study._replace(plan={arm: (5, tune.SEEDS[0])}))
    with pytest.raises(ValueError, match="^study 'arms' of all splits: allowed are studies of experiments$"):
        tune.tuning_study(study._replace(plan={object(): (1,)}))
