# make test    sets up what is missing and checks everything
# make help    lists the targets

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

# What the tests use of Debian. The race detector needs the C compiler.
PACKAGES := user-mode-linux lvm2 kpartx dmsetup fdisk dosfstools xfsprogs btrfs-progs e2fsprogs thin-provisioning-tools \
	busybox-static kmod iproute2 attr acl libarchive-tools gdisk parted pigz gcc libc6-dev \
	systemd udev dbus

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .cache/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# The S3 servers of the tests, at the versions that are pinned there.
S3_VERSIONS := internal/store/s3/s3test/versions
S3_SERVERS := $(shell awk '{n = split($$1, p, "/"); print ".cache/bin/" p[n] "-" $$2}' $(S3_VERSIONS))

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Tests that boot a machine. They run apart, without the race detector, which does not start there.
MACHINE_TESTS := ^Test(Lab|Boot)

.PHONY: help setup packages build deb lint-deb demo fmt lint test test-host test-lab fuzz clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build the static program ./voltar
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o voltar ./cmd/voltar

test: setup lint test-host test-lab fuzz ## set up and check everything

setup: packages $(GOLANGCI_LINT) $(S3_SERVERS) ## install what the tests need and is missing

packages:
	@missing=$$(for p in $(PACKAGES); do
		dpkg-query --show --showformat '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || printf ' %s' $$p
	done)
	install="apt-get install -y --no-remove --no-install-recommends$$missing"
	if [ -z "$$missing" ]; then
		:
	elif [ "$$(id -u)" != 0 ]; then
		printf 'Packages are missing. Install them once, as root:\n\n    %s\n\n' "$$install" >&2
		exit 1
	else
		export DEBIAN_FRONTEND=noninteractive
		$$install || { apt-get update && $$install; }
	fi
	go mod download

$(GOLANGCI_LINT):
	@mkdir -p $(@D)
	GOBIN=$(CURDIR)/$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(@D)/golangci-lint $@

deb: ## build the Debian package into dist/
	@packaging/build-deb '$(VERSION)' dist

lint-deb: deb ## check the package with lintian
	lintian --fail-on error,warning --tag-display-limit 0 dist/voltar_*.deb

demo: packages build ## two nights on real volumes in a throw-away machine; leaves demo/
	CGO_ENABLED=0 go build -trimpath -o .cache/bin/demo ./internal/lab/demo
	.cache/bin/demo voltar

$(S3_SERVERS):
	@mkdir -p $(@D)
	read -r module version < <(awk -v want=$(@F) '{n = split($$1, p, "/")} p[n] "-" $$2 == want {print $$1, $$2}' $(S3_VERSIONS))
	CGO_ENABLED=0 GOBIN=$(CURDIR)/$(@D) go install -trimpath -ldflags '-s -w' $$module@$$version
	mv $(@D)/$${module##*/} $@

fmt: ## format the source
	gofmt -w $$(git ls-files '*.go')

lint: $(GOLANGCI_LINT) ## check format, style and the import rules
	@unformatted=$$(gofmt -l $$(git ls-files '*.go'))
	if [ -n "$$unformatted" ]; then printf 'not formatted (make fmt does it):\n%s\n' "$$unformatted" >&2; exit 1; fi
	$(GOLANGCI_LINT) run

test-host: ## run all tests that need no machine, under the race detector
	go test -race -timeout 15m -skip '$(MACHINE_TESTS)' ./...

test-lab: ## run the tests that need one, two machines at a time
	go test -count 1 -p 2 -timeout 40m -run '$(MACHINE_TESTS)' ./...

fuzz: ## share a minute of fuzzing out among all fuzz targets
	internal/lab/fuzz.sh 60

clean: ## remove what the targets above made, but not the tools
	rm -rf voltar demo dist

.ONESHELL:
.NOTPARALLEL:
