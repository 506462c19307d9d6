.PHONY: style quality test slow
PYTHON ?= python

style:      ## rewrite the code to the house style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

quality:    ## what CI checks before the tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test:       ## the default suite
	$(PYTHON) -m pytest

slow:       ## the long tests, which CI runs as well
	$(PYTHON) -m pytest -m slow
