# Every target sets up what it needs on a fresh machine with Python >= 3.11.
# The first Python that fits is taken, or the one given: make PYTHON=/path/to/python3.12 demo
NEW := sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,\
  $(shell $(name) -c "import sys, venv, ensurepip; $(NEW)" 2>/dev/null && echo $(name))))
BIN := .venv/bin
# Threads that wait do not spin: free on an idle machine, ten times faster beside other work.
export OMP_WAIT_POLICY ?= PASSIVE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
NOTEBOOKS ?= *.ipynb
# As many processes as cores, but no more than four, of one thread each.
PARALLEL := OMP_NUM_THREADS=1 "$(CURDIR)/$(BIN)/python" -m pytest --numprocesses auto --maxprocesses 4
NBVAL := MINILUMIERE_SMOKE=1 $(PARALLEL) --dist loadfile --nbval-cell-timeout 120 -p no:cacheprovider
.PHONY: demo help test unit lint notebooks execute test-browser lab student site badges clean

demo: .venv/demo                ## generate one clip
	$(BIN)/minilumiere generate "a red 3 moving right" --frames 80 --fast --seed 0 -o demo.gif

help:                           ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: lint unit notebooks       ## everything that CI runs

lint: .venv/test                ## the style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: .venv/test                ## the tests of the package
	$(PARALLEL) --dist worksteal tests

notebooks: .venv/test           ## run every notebook and compare with its stored outputs
	cd notebooks && $(NBVAL) --nbval --nbval-sanitize-with sanitize.cfg .

execute: .venv/test             ## NOTEBOOKS=06*.ipynb: run notebooks anew, and keep their outputs
	cd notebooks && ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.store_widget_state=False $(NOTEBOOKS) && ../$(BIN)/python shrink.py $(NOTEBOOKS) \
	  && ../$(BIN)/python thumbnails.py
	$(BIN)/ruff format notebooks

# Needs Chromium and its driver, which pip does not bring: on Debian and Ubuntu, apt-get install chromium chromium-driver.
test-browser: .venv/browser     ## run notebooks in JupyterLab in a headless browser, and move their sliders
	$(BIN)/python -m pytest tests/browser

lab: .venv/test                 ## open the notebooks
	$(BIN)/jupyter lab notebooks

student: .venv/test             ## copies of the notebooks without their answers, to hand out: student/
	$(BIN)/python notebooks/student.py

site: .venv/site                ## README, docs and notebooks as a site: docs/site/_build/html
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs/site -d docs/site/_build/doctrees . docs/site/_build/html
	$(BIN)/python docs/site/links.py docs/site/_build/html

badges:                         ## REPOSITORY=owner/name: links that open the notebooks in Colab and Binder
	$(PYTHON) notebooks/badges.py $(REPOSITORY)

.venv/demo: pyproject.toml constraints.txt
	@$(BIN)/python -c "import sys, pip; $(NEW)" 2>/dev/null || { \
	  "$(PYTHON)" -c "import sys, venv, ensurepip; $(NEW)" 2>/dev/null || { \
	    echo "minilumiere needs Python >= 3.11 with venv and pip; $$(python3 --version 2>&1 || echo no Python) is no such one." \
	      "Install it, or say where it is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  echo "making .venv with $$("$(PYTHON)" --version)"; rm -rf .venv; "$(PYTHON)" -m venv .venv; }
	$(PIP) --editable .
	touch $@

.venv/test: .venv/demo
	$(PIP) --editable '.[notebooks,test]'
	touch $@

.venv/browser: .venv/test
	$(PIP) --editable '.[browser]'
	touch $@

.venv/site: .venv/demo
	$(PIP) --editable '.[site]'
	touch $@

clean:
	rm -rf .venv demo.gif student docs/site/_build .pytest_cache .ruff_cache .hypothesis
