# make run, make test, make lab and make site set up what they need in .venv; nothing has to be installed before.
PYTHON ?= python3
STUDY ?= quick
SITE ?= build/site

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

site: .venv/site  # the notebooks, the guide and the public names as web pages, in build/site/html
	rm -rf $(SITE) && mkdir -p $(SITE)/source
	cp -r docs/. README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff LICENSE figures notebooks $(SITE)/source
	.venv/bin/sphinx-build -W --keep-going -n -q -d $(SITE)/doctrees $(SITE)/source $(SITE)/html
	@echo "the site is $(SITE)/html/index.html"

tune: .venv/ready  # the best settings of every arm of the design, by the same budget; TABLE=design-digits for one data set
	$(MAKE) --no-print-directory -f figures/Makefile tune

small: .venv/ready  # the whole design at a small size, from tuning to tables, in runs/small
	$(MAKE) --no-print-directory -f figures/Makefile small

reproduce: .venv/ready  # every table and figure from nothing; TABLE=name for one, DRY_RUN=yes to be told how long it takes
	$(MAKE) --no-print-directory -f figures/Makefile $(or $(TABLE),all) $(if $(DRY_RUN),| $(HOURS))

HOURS = awk '{ print } /^would run/ { minutes += $$6 } END { printf "studies: about %.1f hours\n", minutes / 60 }'

bench: .venv/ready  # measure what a study and a split cost, compared with other ways to compute them
	for b in growth steps study all_splits split_cost; do PYTHONPATH=tests .venv/bin/python -W ignore tests/benchmarks/bench_$$b.py || exit 1; done

.venv/ready: pyproject.toml
	@echo "set-up: installing about 400 MB of packages into .venv takes one to three minutes"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[notebooks,cluster,test]'
	touch .venv/ready

.venv/site: .venv/ready
	.venv/bin/pip install --quiet --editable '.[site]'
	touch .venv/site

.PHONY: run test test-long lab notebooks site tune small reproduce bench
