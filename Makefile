# make test    sets up what is missing and checks everything
# make help    lists the targets

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

# What the tests use of Debian. The race detector needs the C compiler.
PACKAGES := user-mode-linux lvm2 kpartx dmsetup fdisk dosfstools xfsprogs btrfs-progs e2fsprogs openssh-client thin-provisioning-tools \
	exfatprogs ntfs-3g \
	patchelf busybox-static kmod iproute2 attr acl libarchive-tools gdisk parted pigz gcc libc6-dev \
	systemd udev dbus git

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .cache/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
DEADCODE_VERSION := v0.52.0
DEADCODE := .cache/bin/deadcode-$(DEADCODE_VERSION)

# The S3 servers of the tests, at the versions that are pinned there.
S3_VERSIONS := internal/store/s3/s3test/versions
S3_SERVERS := $(shell awk '{n = split($$1, p, "/"); print ".cache/bin/" p[n] "-" $$2}' $(S3_VERSIONS))
DEMO_SERVER := $(filter .cache/bin/versitygw-%,$(S3_SERVERS))

# Where build puts the program.
PROGRAM := voltar

VERSION := $(shell packaging/version)

# The race detector looks at all code but for libraries that only calculate, which it would make ten times slower.
RACE := -race $(foreach library,github.com/klauspost/... golang.org/x/crypto/... compress/flate hash/crc32 math/rand/...,-gcflags=$(library)=-race=false)

# Tests that boot a machine. They run apart, without the race detector, which does not start there.
MACHINE_TESTS := ^Test(Lab|Boot)

# The programs that bench compares with.
PEERS := pigz isal restic borgbackup libarchive-tools

# For bench: the tree to archive (one is made when empty), how often, how many MiB to upload, and what alone, as a regular
# expression.
TREE :=
ROUNDS := 5
SIZE := 4096
ONLY :=

.PHONY: help setup packages kernel build deb dist lint-dist lab demo fmt vet lint test test-host test-lab test-slow test-boot \
	test-faults test-mutations fuzz fuzz-long pictures clean \
	bench bench-peers bench-levels bench-scale bench-s3 bench-night bench-origin profile FORCE

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build the static program ./voltar
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(PROGRAM) ./cmd/voltar

test: setup vet test-host test-lab ## set up and check everything that is quick to check, the demo too

test-slow: setup lint ## check everything and all the rest, before a release: hours, whose figures go into docs/reliability.md
	go test -race -tags slow -timeout 0 -skip '$(MACHINE_TESTS)' ./...
	go test -tags slow -count 1 -p 2 -timeout 0 -run '$(MACHINE_TESTS)' ./...
	$(MAKE) test-boot test-faults test-mutations fuzz-long

setup: packages kernel $(S3_SERVERS) ## install what the tests need and is missing

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

# The kernel of the machines, newer than the host's where it can be had.
kernel: packages
	@mkdir -p .cache
	internal/lab/kernel.sh .cache/uml

$(GOLANGCI_LINT):
	@mkdir -p $(@D)
	GOBIN=$(CURDIR)/$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(@D)/golangci-lint $@

$(DEADCODE):
	@mkdir -p $(@D)
	GOBIN=$(CURDIR)/$(@D) go install golang.org/x/tools/cmd/deadcode@$(DEADCODE_VERSION)
	mv $(@D)/deadcode $@

deb: ## build the Debian package for this machine into dist/
	@packaging/build '$(VERSION)' dist "$$(go env GOARCH)" deb

# What dist and lint-dist take beyond Go; apt-get installs it as root.
dist: PACKAGES := rpm xz-utils
lint-dist: PACKAGES := rpm xz-utils lintian rpmlint

dist: packages ## build deb, rpm and tarball for amd64 and arm64 into dist/, with SHA256SUMS
	@rm -rf dist
	for arch in amd64 arm64; do
		packaging/build '$(VERSION)' dist $$arch deb rpm tarball
	done
	cd dist
	sha256sum -- *.deb *.rpm *.tar.gz >SHA256SUMS

lint-dist: packages dist ## check the packages with lintian and rpmlint
	lintian --fail-on error,warning --tag-display-limit 0 dist/*.deb
	rpmlint --strict --config packaging/rpm/rpmlint.toml dist/*.rpm

# Where build puts what runs scripts in machines.
MACHINE := .cache/bin/machine
# For lab: the script and its arguments, sizes of disk and memory, further kernel modules, the folder that becomes /out, and
# 1 for a machine with systemd.
SCRIPT :=
ARGS :=
DISK :=
MEMORY :=
MODULES :=
SHARE :=
SYSTEMD :=

$(MACHINE): FORCE
	@mkdir -p $(@D)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $@ ./internal/lab/machine

lab: kernel $(MACHINE) ## run a shell script as root in a throw-away machine (SCRIPT=file ARGS= DISK=2GiB MODULES= SHARE=folder SYSTEMD=1)
	@$(MACHINE) $(if $(DISK),-disk '$(DISK)') $(if $(MEMORY),-memory '$(MEMORY)') $(if $(MODULES),-modules '$(MODULES)') \
		$(if $(SHARE),-share '$(SHARE)') $(if $(SYSTEMD),-systemd) '$(or $(SCRIPT),$(error which script? make lab SCRIPT=file))' $(ARGS)

demo: kernel build $(DEMO_SERVER) $(MACHINE) ## two nights on real volumes in a throw-away machine; leaves demo/
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o .cache/bin/demo-mail ./internal/lab/demo
	rm -rf demo
	$(MACHINE) -disk 3GiB -memory 3GiB -share demo internal/lab/demo/demo.sh \
		'/host$(CURDIR)/$(PROGRAM)' '/host$(CURDIR)/$(DEMO_SERVER)' '/host$(CURDIR)/.cache/bin/demo-mail'

$(S3_SERVERS):
	@mkdir -p $(@D)
	read -r module version < <(awk -v want=$(@F) '{n = split($$1, p, "/")} p[n] "-" $$2 == want {print $$1, $$2}' $(S3_VERSIONS))
	CGO_ENABLED=0 GOBIN=$(CURDIR)/$(@D) go install -trimpath -ldflags '-s -w' $$module@$$version
	mv $(@D)/$${module##*/} $@

.cache/bin/bench: FORCE
	@mkdir -p $(@D)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $@ ./internal/bench
FORCE:

bench: bench-peers .cache/bin/bench ## measure voltar beside others (TREE=folder ROUNDS=5 ONLY='extract: .*')
	.cache/bin/bench -tree '$(TREE)' -rounds '$(ROUNDS)' -only '$(ONLY)'

bench-peers: ## install the programs that bench compares with, where one can
	@if [ "$$(id -u)" = 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-remove --no-install-recommends $(PEERS) >/dev/null ||
			echo 'bench-peers: not all of them can be installed; bench leaves out what is missing' >&2
	fi

bench-levels: .cache/bin/bench ## measure every level of compression
	.cache/bin/bench -tree '$(TREE)' -rounds '$(ROUNDS)' -levels

bench-scale: .cache/bin/bench ## archive trees of up to a million files, made in memory (1.3 GB of /dev/shm)
	trap 'rm -rf /dev/shm/voltar-bench' EXIT
	.cache/bin/bench -rounds '$(ROUNDS)' -scale /dev/shm/voltar-bench
	go test ./archive -run '^$$' -bench AmongAMillion -benchmem

bench-s3: build $(S3_SERVERS) .cache/bin/bench ## upload a stream to S3 servers on loopback, beside rclone and mc (SIZE=4096, in MiB)
	@if [ "$$(id -u)" = 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-remove --no-install-recommends rclone >/dev/null ||
			echo 'bench-s3: rclone cannot be installed, and is left out' >&2
	fi
	.cache/bin/bench -rounds '$(ROUNDS)' -s3 '$(SIZE)' -only '$(ONLY)'

# For bench-night: how many volumes, night after night.
VOLUMES := 60 240 1000

bench-night: build $(MACHINE) ## nights of more and more volumes, with an lvm2 that costs nothing, in a throw-away machine (VOLUMES="60 240 1000")
	@$(MACHINE) -disk 64MiB -memory 3GiB internal/bench/night.sh '/host$(CURDIR)/$(PROGRAM)' $(VOLUMES)

bench-origin: .cache/bin/bench ## measure what snapshots cost whoever writes to a volume, in a throw-away machine
	.cache/bin/bench -origin

profile: .cache/bin/bench ## where the time goes: archive, verify and extract, after one round of bench
	@.cache/bin/bench -tree '$(TREE)' -rounds 1 -only '^archive: voltar default$$' >/dev/null
	cd .cache/bench
	for step in "archive v '$(or $(TREE),tree)' default" 'verify v' 'extract v x-profile'; do
		CPUPROFILE=$${step%% *}.pprof sh -c "../bin/bench step $$step"
		go tool pprof -top -nodecount 25 ../bin/bench $${step%% *}.pprof
	done
	rm -rf x-profile

fmt: ## format the source
	gofmt -w $$(git ls-files '*.go') </dev/null

vet: ## check the format, and what go vet finds
	@sources=$$(git ls-files '*.go') || :
	if [ -z "$$sources" ]; then echo 'make vet: git lists no source here: run it in a clone of your own' >&2; exit 1; fi
	unformatted=$$(gofmt -l $$sources </dev/null)
	if [ -n "$$unformatted" ]; then printf 'not formatted (make fmt does it):\n%s\n' "$$unformatted" >&2; exit 1; fi
	go vet -tags slow,boot,pictures ./...

lint: vet $(GOLANGCI_LINT) $(DEADCODE) ## check style and the import rules too, and that every function is used
	@$(GOLANGCI_LINT) run --allow-parallel-runners
	unused=$$($(DEADCODE) ./cmd/voltar && $(DEADCODE) -test -tags slow,boot,pictures ./...) # what the program never calls, and what tests do not
	if [ -n "$$unused" ]; then printf 'nothing calls these:\n%s\n' "$$unused" >&2; exit 1; fi

# What waits for servers most begins first, so that others calculate meanwhile.
test-host: ## run all tests that need no machine, under the race detector
	go test $(RACE) -timeout 30m -skip '$(MACHINE_TESTS)' ./internal/store/s3 ./...

# Each lab test has a limit of its own that follows the machine's speed; go test's is for a machine that hangs.
test-lab: ## run the tests that need one, two packages at a time
	go test -count 1 -p 2 -timeout 40m -run '$(MACHINE_TESTS)' ./...

test-boot: PACKAGES += mmdebstrap qemu-system-x86 ovmf
test-boot: packages ## boot restored Debian guests in an emulated PC, which takes a while
	go test -tags boot -count 1 -timeout 2h -v ./internal/lab/boottest

# For test-faults: of what is random, how much of it, and by how many machines at a time. A run that was stopped goes on
# where it was.
SEED := 1
CASES :=
CASE :=
KILLS := 200
CUTS := 20
MACHINES := 2
FAULTS = VOLTAR_FAULTS_SEED=$(SEED) VOLTAR_FAULTS_CASES=$(CASES) VOLTAR_FAULTS_ONLY='$(CASE)' VOLTAR_FAULTS_KILLS=$(KILLS) \
	VOLTAR_FAULTS_CUTS=$(CUTS) VOLTAR_FAULTS_PARTS=$(MACHINES)

test-faults: setup ## break everything around the program, machine after machine, for hours (SEED=1 CASES= KILLS=200 CUTS=20 MACHINES=2 CASE='.*')
	@parts=
	trap 'kill $$parts 2>/dev/null || :' EXIT
	for ((part = 0; part < $(MACHINES); part++)); do
		VOLTAR_FAULTS=full VOLTAR_FAULTS_PART=$$part $(FAULTS) go test -count 1 -timeout 24h ./internal/faults & parts+=" $$!"
	done
	failed=
	for part in $$parts; do wait $$part || failed=yes; done
	VOLTAR_FAULTS=figures go test -v -count 1 ./internal/faults | grep '^seeds '
	[ -z "$$failed" ]

test-mutations: setup ## disable each condition of the gate, one at a time, and see that a test fails
	go run ./internal/faults/mutations -write

fuzz: ## share a minute of fuzzing out among all fuzz targets
	internal/lab/fuzz.sh 60

fuzz-long: ## fuzz each target for ten minutes
	internal/lab/fuzz.sh 600 each

# What people see is looked at by people. This fails only where the layout breaks: a page that is too wide, texts that overlap, are cut
# off or can hardly be read.
pictures: PACKAGES := chromium fonts-liberation fonts-dejavu-core
pictures: packages ## render the mail and the status page in a headless Chromium, light and dark, wide and narrow; writes pictures/
	rm -rf pictures
	go test -tags pictures -count 1 -timeout 30m -run '^Test(Pictures|Layout|Page)' ./report

clean: ## remove what the targets above made, but not the tools
	rm -rf voltar demo dist pictures

.ONESHELL:
.NOTPARALLEL:
