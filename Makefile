# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself, `make docs` a small one.
PYTHON ?= python3
BIN := .venv/bin
export YOLO_AUTOINSTALL := false
export PYTHONDONTWRITEBYTECODE := # some two hundred processes of the tests would compile the package anew

.PHONY: setup demo test accept matrix study docs lint dist smoke clean

setup: .venv/installed

.venv/installed: pyproject.toml yolo_dyn.pth yolo_dyn.start
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/yolo-dyn demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process for each core, up to four, each with one thread: two threads in each would only wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope

test: lint
	$(PYTEST) -m "not accept"

accept: lint
	$(PYTEST) --durations=25

# The tests that touch Ultralytics with each of its versions, of torch and Python, and the table of them: hours, and
# six gigabytes at a time. One row: .venv/bin/nox -s "ultralytics(number='8.3.0')".
matrix: setup
	$(BIN)/nox

# What is missing of the study under docs/results, arm by arm, then its page: make study DATA=path/to/bccd/data.yaml
DATA ?= bccd/data.yaml
study: setup
	$(BIN)/yolo-dyn study bccd data=$(DATA) out=docs/results page=docs/results.md

# The documentation site, in site/: no broken link, no missing reference. Sources are read, not imported: without torch.
.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --group docs
	touch $@

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# The sdist, and the wheel that is built from it, in dist/.
.venv-dist/installed:
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --upgrade pip build twine
	touch $@

dist: .venv-dist/installed
	rm -rf dist
	.venv-dist/bin/python -m build
	.venv-dist/bin/twine check --strict dist/*

# The wheel alone in an empty environment, away from the sources: its command, its YAMLs, its start-up hook, one epoch, an
# export and the report of a sweep.
TRAINED := runs/smoke/weights/best.pt
smoke: export PYTHONPATH :=
smoke: dist
	rm -rf .venv-smoke
	$(PYTHON) -m venv .venv-smoke
	.venv-smoke/bin/python -m pip install --quiet "$$(echo dist/*.whl)[export]"
	cd .venv-smoke && bin/yolo-dyn info model=yolov8n-sgdm.yaml
	cd .venv-smoke && bin/python -c "from ultralytics import YOLO; print(YOLO('yolov8n-sgdm.yaml').model.model[22])"
	cd .venv-smoke && bin/yolo train model=yolov8n-sgdm.yaml data=shapes.yaml imgsz=96 epochs=1 workers=0 plots=False \
		project=$(CURDIR)/.venv-smoke/runs name=smoke
	cd .venv-smoke && bin/yolo export model=$(TRAINED) format=onnx imgsz=96
	cd .venv-smoke && bin/yolo-dyn robustness model=$(TRAINED) data=shapes.yaml imgsz=96 sigma=0,25 name=smoke
	test -s .venv-smoke/runs/robustness/smoke/report.html

clean:
	rm -rf .venv .venv-docs .venv-dist .venv-smoke dist site .mypy_cache .ruff_cache .pytest_cache .nox
