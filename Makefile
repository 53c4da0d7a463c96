SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What is built lies outside the tree, in a folder for each clone: cargo tells two clones in one
# folder apart by nothing but the age of their files.
CLONE := $(firstword $(shell printf %s '$(CURDIR)' | cksum))
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/streamsession-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target-$(CLONE)
MUTANTS := $(CARGO_TARGET_DIR)/mutants

# The tools of the gate, built once from crates.io. They lie outside the tree, for all clones.
TOOLS := $(CACHE)/tools
install = env -u CARGO_TARGET_DIR cargo install --quiet --locked $(1) --root $(TOOLS)

CRD := crds/streamsessions.gs.tencentcloud.dev.yaml

.PHONY: help demo dev test check fmt lint docs deny spell unit it bench simulate chaos mutants \
	crd smoke

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see it work for real, in a minute (the first time builds for some minutes)
	cargo build --locked --bin streamsession-operator --example demo
	@cargo run --quiet --locked --example demo

dev: ## the same start, but all is left running, to play with
	cargo build --locked --bin streamsession-operator --example demo
	@cargo run --quiet --locked --example demo -- --stay

# It names no package and no file: so no test can be left out of it. The integration tests
# mostly wait. Those of chaos keep the machine busy, so they run alone: others would miss their
# deadlines beside them.
test: check lint docs deny spell ## the whole gate: what CI runs, besides a part of the mutants
	RUST_TEST_THREADS=16 cargo test --locked --workspace -- --skip chaos::
	RUST_TEST_THREADS=16 cargo test --locked --test it chaos::

check: ## the part of the gate that takes seconds
	cargo fmt --all --check
	cargo clippy --locked --workspace --lib -- -D warnings

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, pedantic: every warning is an error
	cargo clippy --locked --workspace --all-targets -- -D warnings

docs: ## rustdoc without a warning, so without a broken link
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

deny: ## licences, banned crates, duplicates and sources of all dependencies: see deny.toml
	$(call install,cargo-deny@0.20.2)
	$(TOOLS)/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

spell: ## spelling, in code and docs: see _typos.toml
	$(call install,typos-cli@1.52.0)
	$(TOOLS)/bin/typos

unit: ## the tests that need no API server; the model takes most of the minutes
	cargo test --locked --workspace --lib --bins
	cargo test --locked -p streamsession-core

it: ## the integration tests, on a real API server; ONLY=moving:: runs those of one module
	RUST_TEST_THREADS=16 cargo test --locked --test it -- $(or $(ONLY),--skip chaos::)

bench: ## how fast the ledger is: criterion, with the spread of the figures
	cargo bench --locked -p streamsession-core --bench '*'

simulate: ## fleets of objects in virtual time: SEED=7 plays one and tells all, SEEDS=100000 many
	@cargo test --quiet --locked -p streamsession-core --test fleets no_seed -- --nocapture

chaos: ## kill it 1000 times at any moment: a quarter of an hour; CHAOS_KILLS=N, CHAOS_SEED=N
	CHAOS_KILLS=$${CHAOS_KILLS:-1000} RUST_TEST_THREADS=4 \
		cargo test --locked --test it chaos:: -- --nocapture

# Of the random histories always the same few. A mutant that never ends is noticed too: exit code 3.
# One that timed out hides the missed ones from the exit code: so the list itself is looked at.
mutants: ## change the core in every small way: a test has to notice each; SHARD=0/24 tries a part
	$(call install,cargo-mutants@27.1.0)
	rm -rf $(MUTANTS)/tree && mkdir -p $(MUTANTS)/tree
	git ls-files -z --cached --others --exclude-standard | \
		tar --create --null --files-from=- | tar --extract --touch --directory=$(MUTANTS)/tree
	cd $(MUTANTS)/tree && \
		PATH=$(TOOLS)/bin:$$PATH CARGO_TARGET_DIR=$(MUTANTS)/target \
		PROPTEST_CASES=150 PROPTEST_RNG_SEED=7 PROPTEST_MAX_SHRINK_ITERS=0 SEEDS=1000 \
		cargo mutants --package streamsession-core --in-place --output $(MUTANTS) \
		$(if $(SHARD),--sharding round-robin --shard $(SHARD)) || test $$? = 3
	! test -s $(MUTANTS)/mutants.out/missed.txt

crd: ## generate the CRD anew
	cargo run --quiet --locked --bin streamsession-operator -- crd > $(CRD).new
	mv $(CRD).new $(CRD)

smoke: ## find out what nobody published, on a real account; needs keys, SESSION_ID, INSTANCE_ID
	cargo build --quiet --locked --bin streamsession-operator
	@OPERATOR=$(CARGO_TARGET_DIR)/debug/streamsession-operator examples/smoke.sh
