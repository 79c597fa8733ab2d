# What a newcomer needs: make demo, make test. Everything else hangs on these two.
# Installs Debian packages when it may (root or sudo), and otherwise says exactly what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BELFRY := target/debug/belfry
# Tools whose packages would start a server on the machine are unpacked here instead of installed.
UNPACKED := $(CURDIR)/build-output/tools
export PATH := $(PATH):$(UNPACKED)/usr/bin
BUILD_TOOLS := cmake:cmake cc:gcc make:make git:git curl:curl
TEST_TOOLS := sipp:sip-tester baresip:baresip h2load:nghttp2-client curl:curl chromium:chromium openssl:openssl kamailio:kamailio python3:python3-venv
# Senders that others wrote, for the tests of the doors.
SENDERS := $(CURDIR)/build-output/senders
BENCH_TOOLS := nginx:nginx-light kamailio:kamailio openssl:openssl sipp:sip-tester h2load:nghttp2-client taskset:util-linux

.PHONY: help fuzz demo build release test check format lint unit properties browser deps deps-test deps-bench bench clean

help: ## Show what there is
	@echo "Belfry. Start with:"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: build ## Build and run everything on loopback, with simulated customers
	@exec $(BELFRY) demo $(ARGS)

build: deps ## Build the binary (development profile)
	@echo "==> building belfry (about 3 minutes the first time)"
	@cargo build --locked

release: deps ## Build the optimised binary
	@cargo build --locked --release

test: deps-test ## The whole gate: format, lints, all tests, the browser test
	@$(MAKE) --no-print-directory format lint unit browser

check: format lint unit ## The gate without the browser

format:
	@echo "==> format"
	@cargo fmt --all --check

lint: deps
	@echo "==> clippy, warnings denied"
	@cargo clippy --locked --workspace --all-targets -- -D warnings

unit: deps
	@echo "==> tests"
	@for name in BELFRY_RFC4475_DIR BELFRY_PROMQL_DIR; do \
	  [ -n "$${!name:-}" ] || echo "NOT RUN: conformance tests whose data is not part of the project; set $$name to its folder"; done
	@server="$(SENDERS)/venv/bin/moto_server"; [ -n "$${BELFRY_S3_SERVER:-}" ] || [ ! -x "$$server" ] || export BELFRY_S3_SERVER="$$server"; \
	  if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace; else cargo test --locked --workspace; fi

properties: deps ## The tests beside the code with fresh draws of the property tests; the seed is printed and makes it the same run again
	@seed=$${PROPTEST_RNG_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "==> PROPTEST_RNG_SEED=$$seed"; \
	  PROPTEST_RNG_SEED=$$seed cargo test --locked --workspace --lib --exclude belfry

browser: build deps-test ## The browser test against a running demo, with screenshots in build-output/browser
	@echo "==> browser test"
	@tests/browser/run

bench: deps-bench release ## Side-by-side measurements against nginx, Kamailio and Prometheus
	@cargo build --locked --release -p belfry-relay --example relay_rate
	@cargo build --locked --release -p belfry-kit --example sip_load
	@cargo build --locked --release -p belfry-load --bin belfry-load-metrics
	@tests/bench/run

TARGET ?= sip_message
SECONDS ?= 60
fuzz: deps ## Fuzz one parser: TARGET=sip_message|sip_stream|sip_uri|sip_digest|sip_name_addr|sdp|rtp|series_chunk|series_block|exposition|exposition_protobuf|openmetrics|remote_write|scrape_config|door_syslog|door_hep|door_otlp|door_elastic|door_loki|alert_rules SECONDS=60
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@mkdir -p tests/fuzz/corpus/$(TARGET) && { cp tests/fuzz/seeds/$(TARGET)/* tests/fuzz/corpus/$(TARGET)/ 2>/dev/null || true; }
	@case "$(TARGET)" in sip_message|sip_stream) [ -z "$${BELFRY_RFC4475_DIR:-}" ] || cp "$$BELFRY_RFC4475_DIR"/* tests/fuzz/corpus/$(TARGET)/;; esac
	@case "$(TARGET)" in sip_*) words=-dict=dictionaries/sip.dict;; sdp) words=-dict=dictionaries/sdp.dict;; *) words=;; esac; \
	  cd tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . $(TARGET) -- -max_total_time=$(SECONDS) -max_len=4096 $$words

deps:
	@$(call need,$(BUILD_TOOLS))
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null || \
	  { echo "missing: Node 20.19 or later (found: $$(node --version 2>/dev/null || echo none)); the page is built with it."; exit 1; }
	@command -v cargo >/dev/null || { echo "missing: Rust (cargo). Install it with rustup, then run make again."; exit 1; }

deps-test: deps
	@$(call need,$(TEST_TOOLS))
	@$(call unpack,promtool:prometheus)
	@$(call unpack_all,rsyslogd,rsyslog libestr0 libfastjson4)
	@$(call unpack_all,syslog-ng,syslog-ng-core libivykis0 libwrap0 libnet1)
	@cmp -s tests/senders/requirements.txt "$(SENDERS)/requirements.txt" || { echo "==> installing senders for Python"; \
	  mkdir -p "$(SENDERS)" && python3 -m venv "$(SENDERS)/venv" && "$(SENDERS)/venv/bin/pip" install -q -r tests/senders/requirements.txt && \
	  cp tests/senders/requirements.txt "$(SENDERS)/"; }
	@cmp -s tests/senders/package-lock.json "$(SENDERS)/package-lock.json" || { echo "==> installing senders for Node"; \
	  mkdir -p "$(SENDERS)" && cp tests/senders/package.json "$(SENDERS)/" && cp tests/senders/package-lock.json "$(SENDERS)/package-lock.new" && \
	  cd "$(SENDERS)" && mv package-lock.new package-lock.json && npm ci --silent --no-fund --no-audit || { rm -f package-lock.json; exit 1; }; }
	@$(call unpack,amtool:prometheus-alertmanager)
	@$(call unpack,prometheus-node-exporter:prometheus-node-exporter)
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || { echo "missing: rustfmt and clippy. Run: rustup component add rustfmt clippy"; exit 1; }

deps-bench: deps
	@$(call need,$(BENCH_TOOLS))
	@ls /usr/lib/*/kamailio/modules/tls.so >/dev/null 2>&1 || { $(call need,kamailio-speaks-tls:kamailio-tls-modules); }
	@ls /usr/lib/*/kamailio/modules/db_postgres.so >/dev/null 2>&1 || { $(call need,kamailio-keeps-in-postgres:kamailio-postgres-modules); }
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { $(call need,postgres-server:postgresql); }
	@$(call unpack,prometheus:prometheus)

clean: ## Remove what was built
	@cargo clean && rm -rf build-output belfry-data

# Installs the packages of the commands that are not there: need,command:package ...
define need
missing=""; \
for pair in $(1); do command -v "$${pair%%:*}" >/dev/null 2>&1 || missing="$$missing $${pair##*:}"; done; \
if [ -n "$$missing" ]; then \
  sudo=""; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
  if command -v apt-get >/dev/null 2>&1 && { [ -z "$$sudo" ] || command -v sudo >/dev/null 2>&1; }; then \
    echo "==> installing$$missing"; \
    $$sudo apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
  else echo "missing:$$missing. Install these packages, then run make again."; exit 1; fi; \
fi
endef

# Unpacks the package of a command that is not there: unpack,command:package
define unpack
if ! command -v $(firstword $(subst :, ,$(1))) >/dev/null 2>&1; then \
  command -v apt-get >/dev/null 2>&1 || { echo "missing: $(firstword $(subst :, ,$(1)))"; exit 1; }; \
  echo "==> unpacking $(lastword $(subst :, ,$(1)))"; \
  mkdir -p "$(UNPACKED)" && cd "$(UNPACKED)" && \
  { apt-get download -qq $(lastword $(subst :, ,$(1))) 2>/dev/null || { apt-get update -qq && apt-get download -qq $(lastword $(subst :, ,$(1))); }; } && \
  dpkg-deb -x $(lastword $(subst :, ,$(1)))_*.deb . && rm -f ./*.deb; \
fi
endef

# Unpacks a daemon with its libraries: unpack_all,command,packages
define unpack_all
if [ ! -e "$(UNPACKED)/usr/sbin/$(1)" ]; then \
  command -v apt-get >/dev/null 2>&1 || { echo "missing: $(1)"; exit 1; }; \
  echo "==> unpacking $(1)"; \
  mkdir -p "$(UNPACKED)/debs" && cd "$(UNPACKED)/debs" && \
  { apt-get download -qq $(2) 2>/dev/null || { apt-get update -qq && apt-get download -qq $(2); }; } && \
  for package in ./*.deb; do dpkg-deb -x "$$package" ..; done && rm -rf "$(UNPACKED)/debs"; \
fi
endef
