# make demo   songs, corpus, dataset, model, something to hear: out/demo
# make test   the test suite        make check   ruff and mypy
# make bench  speed of each stage beside other libraries, memory of a long build
# make bench-loading   the loader beside webdataset, litData, MosaicML streaming and a bare memory map: 20 minutes, 5 GB in out/
PYTHON ?= python3
BIN := .venv/bin
DEMO := out/demo
SONGS := 12

.PHONY: demo test check bench bench-loading setup clean

demo: setup
	$(BIN)/prep compose $(DEMO)/midi --songs $(SONGS) --seed 3
	$(BIN)/prep render $(DEMO)/midi $(DEMO)/corpus
	$(BIN)/prep build --dataset slakh --root $(DEMO)/corpus --out $(DEMO)/data
	$(BIN)/train fit configs/demo.yaml --data $(DEMO)/data --run $(DEMO)/run
	$(BIN)/prep excerpt $(DEMO)/data $(DEMO)/listen --root $(DEMO)/corpus --instrument Bass
	$(BIN)/train play $(DEMO)/run --mix $(DEMO)/listen/mix.wav --instrument Bass --out $(DEMO)/listen/generated.wav
	$(BIN)/prep picture $(DEMO)/listen/mix.wav $(DEMO)/listen/target.wav $(DEMO)/listen/target-decoded.wav \
		$(DEMO)/listen/generated.wav --out $(DEMO)/listen/spectrograms.png
	@echo
	@echo "Listen:  $(DEMO)/listen/mix.wav             what the model hears"
	@echo "         $(DEMO)/listen/target.wav          what the bass played"
	@echo "         $(DEMO)/listen/target-decoded.wav  the same, from its latents"
	@echo "         $(DEMO)/listen/generated.wav       what the model plays to the mix"
	@echo "Look:    $(DEMO)/listen/spectrograms.png"

test: setup
	@sh .ci/system ffmpeg nginx
	$(BIN)/python -m pytest -n auto --maxprocesses 4

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.bench.pairs
	$(BIN)/python -m tests.bench.stages
	$(BIN)/python -m tests.bench.memory --minutes 20 --stems 30

# MosaicML's dependencies clash with ours: an environment of its own, in which shards/ (numpy, fsspec) runs as well
bench-loading: .venv-peers/ready
	.venv-peers/bin/python -m tests.bench.loading

.venv-peers/ready: tests/bench/loading/requirements.txt
	$(PYTHON) -m venv .venv-peers || { echo "No venv module. On Debian: apt-get install python3-venv"; exit 1; }
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

setup: .venv/ready
	@sh .ci/system fluidsynth

.venv/ready: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11. Name another: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv || { echo "No venv module. On Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf out .venv .venv-peers
