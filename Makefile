# Portcullis: everything a person or a CI machine types. `make` alone lists it.
# Needed: Go 1.26, git, make, gcc (for the race detector). All other tools are built from the modules below tools/.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

# A go.work in a parent directory must not change what is built here.
export GOWORK := off

# Tools are kept per Go version: a staticcheck built by an older Go cannot read a newer one's packages.
TOOLS  := bin/tools/$(shell go env GOVERSION)
BUF    := $(TOOLS)/buf
LINT   := $(TOOLS)/staticcheck
PROTOC := $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc

# buf finds the plugins that buf.gen.yaml names on PATH.
WITH_TOOLS := PATH="$(CURDIR)/$(TOOLS):$$PATH" BUF_CACHE_DIR="$(CURDIR)/$(TOOLS)/cache"
RUN_BUF    := $(WITH_TOOLS) $(BUF)

.PHONY: help
help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- build and run

.PHONY: build
build: ## build bin/portcullis (command line) and bin/portcullisd (daemon)
	go build -trimpath -o bin/ ./cmd/portcullis ./cmd/portcullisd

.PHONY: vault
vault: ## build the real Vault for development and tests (minutes the first time, then kept)
	@tools/vault/build.sh

.PHONY: demo
demo: build vault ## play the whole story on a real Vault and clean up; IMAGES=DIR takes your own pictures
	@go build -trimpath -o bin/ ./cmd/portcullis-demo
	@bin/portcullis-demo $(if $(IMAGES),--images "$(IMAGES)")

.PHONY: bench
bench: build vault ## measure against the Vault below it, in turns; BENCH="..." passes flags on, BENCH_JSON=FILE keeps the rows
	@go build -trimpath -o bin/ ./cmd/portcullis-bench
	@bin/portcullis-bench $(BENCH)

# ---- test

# SQLite is C that was made into Go: what it works on is no memory of Go's, where the race detector sees nothing, and
# pointers of its own making, which the race detector's build would check at each step for a third of all the time.
RACE := -race -gcflags='modernc.org/sqlite/lib=-race=false -d=checkptr=0'

.PHONY: test
test: vault check ## all checks and all tests, with the race detector: the one command for a fresh machine
	@echo '== tests, with the race detector'
	@CGO_ENABLED=1 go test $(RACE) -timeout 30m ./...
	@echo '== faces and plates of 2,000 crossings: too many for the race detector'
	@go test -run '^TestUnlinkable$$' ./cmd/portcullisd
	@echo '== the demonstration'
	@$(MAKE) --no-print-directory demo >bin/demo.log 2>&1 </dev/null || { cat bin/demo.log; exit 1; }
	@tail -1 bin/demo.log
	@$(MAKE) fuzz FUZZTIME=2s

# Fuzzers are found by their names. What they learn is kept in Go's cache; what they find lands below testdata/fuzz of
# their package and is run by every test from then on. When its time is over while a worker is at an input, go test may
# fail with "context deadline exceeded" and no input: that is no finding, and the fuzzer runs again, in full.
FUZZTIME ?= 10m
.PHONY: fuzz
fuzz: ## run every fuzzer, FUZZTIME=10m each; ONLY=FuzzClean picks those whose names begin so
	@mkdir -p bin
	@grep -ro --include='*_test.go' --exclude-dir=tools '^func Fuzz[A-Za-z0-9]*' . | sed 's|/[^/]*_test.go:func | |' | sort | while read -r pkg name; do \
		case "$$name" in $(ONLY)*) ;; *) continue ;; esac; \
		echo "== fuzzing $$pkg $$name for $(FUZZTIME)"; \
		tries=3; \
		until go test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=2s -parallel=2 "$$pkg" </dev/null >bin/fuzz.log 2>&1; do \
			tries=$$((tries - 1)); \
			if [ $$tries -eq 0 ] || grep -q 'Failing input' bin/fuzz.log || ! grep -qx '    context deadline exceeded' bin/fuzz.log; then cat bin/fuzz.log; exit 1; fi; \
		done; \
		grep 'elapsed' bin/fuzz.log | tail -1; \
	done

.PHONY: check
check: check-format check-vet check-staticcheck check-modules check-proto check-generated check-imports ## formatting, vet, staticcheck, modules, buf lint, generated code, import rules

.PHONY: check-format
check-format: $(BUF)
	@echo '== formatting (gofmt, buf format)'
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "$$unformatted"; echo 'not formatted: run make format' >&2; exit 1; }
	@$(RUN_BUF) format --diff --exit-code || { echo 'not formatted: run make format' >&2; exit 1; }

.PHONY: check-vet
check-vet:
	@echo '== go vet'
	@go vet ./...

.PHONY: check-staticcheck
check-staticcheck: $(LINT)
	@echo '== staticcheck'
	@$(LINT) ./...

.PHONY: check-modules
check-modules:
	@echo '== go.mod and go.sum are tidy'
	@go mod tidy -diff

.PHONY: check-proto
check-proto: $(BUF)
	@echo '== buf lint'
	@$(RUN_BUF) lint

.PHONY: check-generated
check-generated: $(BUF) $(PROTOC)
	@echo '== generated code and pages are up to date'
	@$(WITH_TOOLS) tools/protoc/check.sh
	@go run ./internal/docgen -check

.PHONY: check-imports
check-imports:
	@echo '== import rules'
	@go test -count=1 ./internal/archtest

.PHONY: breaking
breaking: $(BUF) ## does the API break what AGAINST=<git ref> promised? (default: main)
	@$(RUN_BUF) breaking --against '.git#ref=$(or $(AGAINST),main)'

# ---- write

.PHONY: generate
generate: $(BUF) $(PROTOC) ## write the Go of the .proto files anew, and the pages of docs/ that are made of the code
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(RUN_BUF) generate -o "$$tmp"; \
	find proto -name '*.pb.go' -delete; \
	cp -r "$$tmp/proto" .
	@go run ./internal/docgen

.PHONY: format
format: $(BUF) ## format Go and .proto files
	@gofmt -w .
	@$(RUN_BUF) format -w

.PHONY: clean
clean: ## remove bin/
	@rm -rf bin

# ---- tools, each from a module of its own, so that theirs stay out of our go.mod

build_tool = @echo '== building $(@F)'; go build -C $(1) -o "$(CURDIR)/$(TOOLS)/" $(2)

$(BUF): tools/buf/go.mod tools/buf/go.sum
	$(call build_tool,tools/buf,github.com/bufbuild/buf/cmd/buf)

$(LINT): tools/lint/go.mod tools/lint/go.sum
	$(call build_tool,tools/lint,honnef.co/go/tools/cmd/staticcheck)

$(TOOLS)/protoc-gen-go: tools/protoc/go.mod tools/protoc/go.sum
	$(call build_tool,tools/protoc,google.golang.org/protobuf/cmd/protoc-gen-go)

$(TOOLS)/protoc-gen-go-grpc: tools/protoc/go.mod tools/protoc/go.sum
	$(call build_tool,tools/protoc,google.golang.org/grpc/cmd/protoc-gen-go-grpc)
