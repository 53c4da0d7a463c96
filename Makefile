SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What is built lies outside the tree, in a folder for each clone: cargo tells two clones in one folder apart by nothing but the age of their files.
CLONE := $(firstword $(shell printf %s '$(CURDIR)' | cksum))
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/streamsession-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target-$(CLONE)
MUTANTS := $(CARGO_TARGET_DIR)/mutants

CRD := crds/streamsessions.gs.tencentcloud.dev.yaml

.PHONY: help demo dev test check simulate chaos mutants crd smoke

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see it work for real, in a minute (the first time builds for some minutes)
	cargo build --locked --bin streamsession-operator --example demo
	@cargo run --quiet --locked --example demo

dev: ## the same start, but all is left running, to play with
	cargo build --locked --bin streamsession-operator --example demo
	@cargo run --quiet --locked --example demo -- --stay

test: ## what CI runs; it tries a part of the mutants besides
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	RUST_TEST_THREADS=16 cargo test --locked --workspace -- --skip chaos:: # the integration tests mostly wait
	RUST_TEST_THREADS=16 cargo test --locked --test it chaos:: # these keep the machine busy, and others would miss their deadlines beside them

check: ## the part of it that takes seconds
	cargo fmt --all --check
	cargo clippy --locked --workspace --lib -- -D warnings

simulate: ## fleets of objects in virtual time: SEED=7 plays one and tells all, SEEDS=100000 many
	@cargo test --quiet --locked -p streamsession-core --test fleets no_seed -- --nocapture

chaos: ## kill it a thousand times at any moment, which takes a quarter of an hour; CHAOS_KILLS=N and CHAOS_SEED=N say otherwise
	CHAOS_KILLS=$${CHAOS_KILLS:-1000} RUST_TEST_THREADS=4 cargo test --locked --test it chaos:: -- --nocapture

mutants: ## change the protocol in 800 ways, each of which a test has to notice: three quarters of an hour; SHARD=0/24 tries a part
	cargo install --quiet --locked cargo-mutants@27.1.0 --root $(CACHE)/tools
	rm -rf $(MUTANTS)/tree && mkdir -p $(MUTANTS)/tree
	git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --touch --directory=$(MUTANTS)/tree
	@# Of the random histories always the same few; a mutant that never ends is noticed too (exit code 3).
	cd $(MUTANTS)/tree && PATH=$(CACHE)/tools/bin:$$PATH CARGO_TARGET_DIR=$(MUTANTS)/target PROPTEST_CASES=150 PROPTEST_RNG_SEED=7 PROPTEST_MAX_SHRINK_ITERS=0 SEEDS=1000 \
		cargo mutants --package streamsession-core --in-place --output $(MUTANTS) $(if $(SHARD),--sharding round-robin --shard $(SHARD)) || test $$? = 3
	! test -s $(MUTANTS)/mutants.out/missed.txt # one that timed out hides the others from the exit code

crd: ## generate the CRD anew
	cargo run --quiet --locked --bin streamsession-operator -- crd > $(CRD).new
	mv $(CRD).new $(CRD)

smoke: ## find out what nobody published, on a real account: needs keys, SESSION_ID and INSTANCE_ID
	cargo build --quiet --locked --bin streamsession-operator
	@OPERATOR=$(CARGO_TARGET_DIR)/debug/streamsession-operator examples/smoke.sh
