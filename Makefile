# make run, make test, make lab and make site set up what they need in .venv; nothing has to be installed before.
PYTHON ?= python3
STUDY ?= quick
SITE ?= build/site

run: .venv/ready  # a study: quick (the default), full, ...; DATASET=digits needs no network, and a larger learning rate
	.venv/bin/neuronsplit run $(STUDY) $(if $(DATASET),-p dataset $(DATASET)) $(if $(filter digits,$(DATASET)),-p learning_rate 0.05)

test: .venv/ready  # what checks the project in a few minutes
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/pytest -n auto -m "not long"

test-long: .venv/ready  # the tests that take long, the notebooks of the study, and twice as many drawn cases
	HYPOTHESIS_PROFILE=long .venv/bin/pytest -n auto -m "long or hypothesis"

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

HOURS = awk '{ print } /^would run/ { minutes += $$9 } END { printf "studies: about %.1f hours\n", minutes / 60 }'

bench: .venv/ready  # measure what a study and a split cost, compared with other ways to compute them
	for b in growth steps study all_splits split_cost; do PYTHONPATH=tests .venv/bin/python -W ignore tests/benchmarks/bench_$$b.py || exit 1; done

wheel:  # build the source distribution and the wheel into dist/, and try the wheel alone, in an empty folder
	rm -rf dist build/wheel && mkdir -p build/wheel/empty
	$(PYTHON) -m venv build/wheel/tools && build/wheel/tools/bin/pip install --quiet build twine
	build/wheel/tools/bin/python -m build --outdir dist . && build/wheel/tools/bin/twine check --strict dist/*
	$(PYTHON) -m venv build/wheel/alone && build/wheel/alone/bin/pip install --quiet dist/*.whl
	cd build/wheel/empty && env -u PYTHONPATH ../alone/bin/python $(CURDIR)/tests/try_installed.py

lowest:  # the tests with the lowest versions of packages that pyproject.toml allows; TESTS=file for one file
	$(INSTALL) --resolution lowest-direct
	$(TEST)

newest:  # the tests with the newest versions that it allows
	$(INSTALL) --resolution highest
	$(TEST)

INSTALL = $(PYTHON) -m venv build/$@ && build/$@/bin/pip install --quiet uv && \
	build/$@/bin/uv pip install --quiet --python build/$@ --upgrade --editable '.[notebooks,cluster,test]'
TEST = build/$@/bin/python -m pytest -n auto -m "not long" $(TESTS)

address:  # the address on GitHub, ADDRESS=owner/name, in links, badges and the first cells of notebooks
	test -n "$(ADDRESS)"
	old=$$(sed -n 's|^Repository = "https://github.com/\([^"]*\)".*|\1|p' pyproject.toml) && \
	sed -i.old "s|$$old|$(ADDRESS)|g" $$(grep -lrF "$$old" pyproject.toml CITATION.cff README.md notebooks/*.py notebooks/*.ipynb)
	rm -f *.old notebooks/*.old

.venv/ready: pyproject.toml
	@echo "set-up: installing packages into .venv, in silence: 400 MB in about three minutes, or several GB if pip chooses torch with CUDA"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[notebooks,cluster,test]'
	touch .venv/ready

.venv/site: .venv/ready
	.venv/bin/pip install --quiet --editable '.[site]'
	touch .venv/site

.PHONY: run test test-long lab notebooks site tune small reproduce bench wheel lowest newest address
