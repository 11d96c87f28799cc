# make alone lists the targets.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BINARY   := bin/pitr
FUZZTIME ?= 60s
SOAK     ?= 5m
GO       ?= go

# Git refuses to describe a clone that belongs to somebody else; that is no reason not to build it.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

# The shell's $$packages: all but the live tests. Without a list, nothing may run.
list = packages=$$($(GO) list ./...) || exit 1; packages=$$(echo "$$packages" | grep -v '^pitr/test$$')
scripts := .ci/run test/demo test/setup

.DEFAULT_GOAL := help
.PHONY: help build setup test unit live soak lint fuzz demo bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The live tests build what they test with this, with other values for BINARY and VERSION.
build: ## bin/pitr, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X pitr/multicall.version=$(VERSION)" -o $(BINARY) .

setup: ## install what the tests and the demo need (as root; otherwise say what is missing)
	@test/setup

test: setup unit live ## every test: the packages with the race detector, then real servers

# The race detector makes it slow to fail every operation in turn, so with it only some are: all of them without it.
unit: ## the packages' own tests, then again with the race detector
	@test/setup --unit
	@$(list); $(GO) test $$packages && $(GO) test -race -short $$packages

live: ## end to end on PostgreSQL 13 to 18 (after make setup)
	$(GO) test -count=1 -parallel 3 -timeout 60m ./test

soak: ## agents through long queues and a bad day (SOAK=5m is the day; the queue takes as long again, or longer)
	@test/setup
	$(GO) test -tags soak -count=1 -v -timeout 120m -run '^TestSoak' ./test -soak $(SOAK)

lint: ## gofmt, go vet, staticcheck, go mod tidy, shellcheck
	@test/setup --lint
	@unformatted=$$(gofmt -l .) || exit 1; [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags soak ./test
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	@for script in $(scripts); do bash -n $$script || exit 1; done
	shellcheck $(scripts)

fuzz: ## every fuzz target for FUZZTIME (60s)
	@$(list); ran=0; for package in $$packages; do \
		listed=$$($(GO) test -list '^Fuzz' $$package) || { echo "$$listed"; exit 1; }; \
		for target in $$(echo "$$listed" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$package || exit 1; \
			ran=$$((ran + 1)); \
		done; \
	done; \
	echo "fuzz targets that ran: $$ran"; [ $$ran -gt 0 ]

demo: build ## archiving, a standby, a failover and a point-in-time recovery, on real servers
	@test/setup --demo
	@test/demo bin/pitr

bench: build ## time pitr beside what would be used instead (ROUNDS=15 TASKS=regexp RIVALS=regexp)
	@test/setup --bench
	@$(GO) run ./test/bench -rounds $(or $(ROUNDS),15) -tasks '$(TASKS)' -rivals '$(RIVALS)'

clean: ## remove what was built (the fetched servers stay in .cache)
	rm -rf bin
