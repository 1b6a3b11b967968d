# make run, make test and make lab set up what they need in .venv; nothing has to be installed before.
PYTHON ?= python3
STUDY ?= quick

run: .venv/ready  # a study: quick (the default), full, ...; DATASET=digits needs no network, and a larger learning rate
	.venv/bin/neuronsplit run $(STUDY) $(if $(DATASET),-p dataset $(DATASET)) $(if $(filter digits,$(DATASET)),-p learning_rate 0.05)

test: .venv/ready  # what checks the project in a few minutes
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/pytest -n auto -m "not long"

test-long: .venv/ready  # the tests that take a minute or more each
	.venv/bin/pytest -n auto -m long tests

lab: .venv/ready  # JupyterLab on the notebooks
	.venv/bin/jupyter lab notebooks

notebooks: .venv/ready  # execute every notebook again from its .py, in place
	cd notebooks && for n in *.py; do ../.venv/bin/jupytext --quiet --to ipynb --execute $$n || exit 1; done

publish: .venv/ready  # a finished study's table to figures/data: make publish STUDY=full NAME=fashion-mnist
	cp runs/$(STUDY)/table.parquet figures/data/$(NAME).parquet

pictures: .venv/ready  # draw figures/ again, from figures/data and from networks that are trained for it
	for n in 04_comparison 06_the_2021_study 07_do_twins_part 08_which_how_when 11_how_good_could_a_choice_be 12_a_network_that_decides; do .venv/bin/papermill notebooks/$$n.ipynb runs/$$n.ipynb -p figures figures/fashion-mnist- || exit 1; done
	.venv/bin/papermill notebooks/14_what_it_costs.ipynb runs/14_what_it_costs.ipynb -p figures figures/
	.venv/bin/papermill notebooks/02_grow_while_training.ipynb runs/growth.ipynb -p dataset fashion-mnist -p learning_rate 0.01 -p figures figures

# The long run of notebook 13, two at a time: two tuning seeds at five or seven learning rates, then five seeds at the best
# of them. A file is a run of the notebook: its name has the seed, and the rates that are tried. What is there stays. If
# the notebook changes, a file gets what it lacks of the new arms and settings. After a change of the network, the
# growth or the training itself, delete the folder. STEPS are 50 or more.
# What the notebook shows after its training is of the table as it was, and may fail.
STEPS ?= 2000
WARM_UP ?= 100
LM = runs/language-model
LM_FIRST = $(foreach s,100 101,$(foreach g,0.002 0.004+0.008+0.016+0.032,$(LM)/first/$(s)+$(g).parquet))
LM_TUNED = $(foreach s,100 101,$(foreach g,0.00025 0.0005+0.001 0.002+0.004 0.008+0.016,$(LM)/grown/$(s)+$(g).parquet))
LM_SEEDS = $(foreach s,0 1 2 3 4,$(LM)/seeds/$(s).parquet)
LM_NOT_GROWN = small, large, "small, Muon", "large, Muon"
comma = ,
space = $(subst ,, )
define LM_RUN
mkdir -p $(@D)
OMP_NUM_THREADS=1 .venv/bin/papermill --no-progress-bar notebooks/13_grow_a_language_model.ipynb $(@:.parquet=.ipynb) \
	-p seed $(firstword $(subst +, ,$*)) -p steps $(STEPS) -p warm_up $(WARM_UP) -p save $@ -y '{tuning: "$(1)", arms: [$(2)], \
	learning_rates: [$(subst $(space),$(comma) ,$(wordlist 2,9,$(subst +, ,$*)))]}' >$(@:.parquet=.log) 2>&1 || { test -f $@ && test -z "$$(find $^ -newer $@)"; }
endef
$(LM_FIRST): $(LM)/first/%.parquet: notebooks/13_grow_a_language_model.py | .venv/ready
	$(call LM_RUN,,$(LM_NOT_GROWN))
$(LM_TUNED): $(LM)/grown/%.parquet: $(LM_FIRST)
	$(call LM_RUN,$(LM)/first)
$(LM_SEEDS): $(LM)/seeds/%.parquet: $(LM_TUNED)
	$(call LM_RUN,$(LM))

reproduce: .venv/ready  # train the language models of notebook 13 again, about an hour on two idle cores
	$(MAKE) -k -j 2 $(LM_SEEDS) || $(MAKE) -j 2 $(LM_SEEDS)  # two kernels that start at once can collide at a port
	-.venv/bin/papermill notebooks/13_grow_a_language_model.ipynb runs/13_grow_a_language_model.ipynb -p join $(LM)
	.venv/bin/papermill notebooks/13_grow_a_language_model.ipynb runs/13_grow_a_language_model.ipynb -p figures figures/

bench: .venv/ready  # measure what a study and a split cost, compared with other ways to compute them
	for b in growth steps study all_splits split_cost; do PYTHONPATH=tests .venv/bin/python -W ignore tests/benchmarks/bench_$$b.py || exit 1; done

.venv/ready: pyproject.toml
	@echo "set-up: installing about 400 MB of packages into .venv takes one to three minutes"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[notebooks,cluster,test]'
	touch .venv/ready

.PHONY: run test test-long lab notebooks publish pictures reproduce bench
