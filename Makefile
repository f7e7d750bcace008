# Every command a person or CI runs. `make` alone lists them.

NODES ?= 2
KUBE_PROXY ?= nftables
CNI ?= ptp
FUZZ_SECONDS ?= 60
KUBECONFIG ?= $(CURDIR)/target/cluster/kubeconfig
export NODES KUBE_PROXY CNI KUBECONFIG

.PHONY: help demo test test-fast test-matrix soak fuzz bench bench-quick fmt lint crds images cluster-up cluster-down deploy

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## the article on this machine: cargo alone, no root, no cluster
	@deploy/examples/sentiment/demo.sh

test: ## everything: format, lints, unit, push, proxy, node and cluster tests
	@tests/run.sh all

test-fast: ## what needs neither root nor a cluster
	@tests/run.sh fast

test-matrix: ## the cluster tests on kube-proxy iptables, the bridge CNI, three nodes
	@tests/run.sh matrix

soak: ## one proxy under mixed load, with faults and changes all the time: SOAK_MINUTES=30
	@cargo build -q -p umbra-proxy --locked
	@cargo test -q -p umbra-tests --locked --test proxy -- --ignored --nocapture proxy_soak

fuzz: ## changed bytes to every parser, FUZZ_SECONDS=60 each; what fails is written to the corpora
	@FUZZ_SECONDS=$(FUZZ_SECONDS) HYPER_CASES=$$(($(FUZZ_SECONDS) * 5000)) \
		cargo test -q -p umbra-proxy --lib --locked http1:: -- --nocapture

bench: ## what a request costs, beside Envoy, nginx, HAProxy and a forwarder of bytes
	@tests/bench/run.sh full

bench-quick: ## the same in under 10 minutes, with fewer rounds
	@tests/bench/run.sh quick

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, warnings refused
	cargo clippy --workspace --all-targets --locked -- -D warnings

crds: ## write crds/ from the types
	cargo run -q -p umbra-api --bin crdgen

images: ## static binaries and their images, with buildah or docker
	@deploy/images.sh

cluster-up: ## a throwaway Kubernetes cluster: NODES, KUBE_PROXY=nftables|iptables, CNI=ptp|bridge
	@tests/cluster/up.sh

cluster-down: ## take it away
	@tests/cluster/down.sh

deploy: ## CRDs and umbra onto the cluster of KUBECONFIG
	@deploy/deploy.sh
