# The commands a person types. Each is a line that could be typed by hand.
.PHONY: help run run-real check test bench image bundle soak chaos fuzz cluster-up cluster-images cluster-shell cluster-down
TARGET = "$${CARGO_TARGET_DIR:-target}"
BIN = $(TARGET)/release
LANES = $(filter-out lanes, $(basename $(notdir $(wildcard e2e/tests/*.rs))))
IMAGE ?= imcluster:0.1.0
MINUTES ?= 10
SEED ?= 1

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@echo "lanes           $(LANES)"

run: ## comet, logic and job in one process, in memory; nothing else is needed
	cargo run --release -- standalone

run-real: ## the same on real Kafka and Redis, which are started on loopback and end with it
	cargo build --release -p imcluster -p e2e --bins && $(BIN)/neighbours imcluster standalone --kafka {kafka} --redis {redis}

check: ## what to run before a commit: format, lints, unit tests
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && cargo test --workspace --lib --bins

test: ## everything, with what it needs installed; ends in one line of counts
	@.ci/test

bench: ## the figures of the README, measured here
	cargo build --release -p imcluster -p e2e --bins && $(BIN)/imcluster bench suite

image: ## the container image as an OCI archive, made without Docker: IMAGE=imcluster:0.1.0
	cargo build --release -p imcluster -p e2e --bins && $(BIN)/image imcluster --name $(IMAGE) --out $(TARGET)/imcluster.tar

bundle: ## deploy/imcluster.yaml, from the charts with helm
	deploy/bundle

soak: ## one e2e test for longer: LANE=neighbours MINUTES=60 SEED=7
	@test -n "$(filter $(LANES),$(LANE))" || { echo "LANE is one of: $(LANES)"; exit 1; }
	cargo build --release -p imcluster -p e2e --bins && IMCLUSTER_SOAK_MINUTES=$(MINUTES) IMCLUSTER_SOAK_SEED=$(SEED) cargo test --release -p imcluster -p e2e --test lanes -- --nocapture --test-threads=1 $(LANE)::

chaos: ## everything is killed, frozen, cut off and clogged, as root: MINUTES=60 SEED=7
	$(MAKE) soak LANE=chaos

fuzz: ## everything that reads what strangers send, under libFuzzer: MINUTES=10 for each target
	@.ci/fuzz $(MINUTES)

cluster-up: ## a real Kubernetes with two nodes, as root; images of IMCLUSTER_IMAGES=folder are on both
	e2e/cluster/cluster up

cluster-images: image ## onto both of its nodes: this tree's as imcluster:0.1.0, and what kafka.dev and redis.dev run
	$(BIN)/image kafka --name apache/kafka:4.1.1 --out $(TARGET)/kafka.tar
	$(BIN)/image redis --name redis:7 --out $(TARGET)/redis.tar
	e2e/cluster/cluster load $(TARGET)/imcluster.tar $(TARGET)/kafka.tar $(TARGET)/redis.tar

cluster-shell: ## a shell where kubectl and helm reach it
	@e2e/cluster/cluster shell

cluster-down: ## its end
	e2e/cluster/cluster down
