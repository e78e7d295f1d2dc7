# aioc: a secure asynchronous message queue for the shell
#
# make          build all programs into bin/
# make demo     two connectors on this host, and messages through them
# make test     all tests; needs Go and make only
# make lint     formatting, vet, staticcheck, pages, scripts, other systems
# make interop  together with the Python program aioconnectors (needs Python)
# make bridge   the recipes of aioc-bridge(7) (needs the brokers and their tools)
# make bench    how fast it is
# make crashtest  kill the programs under load, KILLS times; nothing may be lost
# make fuzz     every fuzz target, each for FUZZTIME
# make race     the tests with the race detector, or an error without it
# make install  below $(DESTDIR)$(PREFIX); uninstall removes the same files
# make deb      a Debian package in bin/ (needs dpkg-deb)
# make systemd  that package in a container that is booted (needs systemd-nspawn)
# make completions  from what the programs print with -h
#
# GOFLAGS, GOOS and the like work as everywhere with Go.

.POSIX:

PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
DATADIR = $(PREFIX)/share
# Of systemd, which looks there below /usr and /usr/local.
SYSTEMDDIR = $(PREFIX)/lib
# On FreeBSD it is /usr/local/etc.
SYSCONFDIR = /etc
DESTDIR =
# Where the programs are built, and installed from.
OUT = bin
GO = go
GOFMT = gofmt
FUZZTIME = 30s
KILLS = 200
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The version that the programs show; when it is empty, git knows it.
VERSION =
# Packages whose tests depend on how goroutines take turns.
CONCURRENT = cli|spool|queue|link|local|peer|control|api|connector|daemon

all:
	@v='$(VERSION)'; \
	if [ -z "$$v" ] && [ -e .git ]; then \
		v=$$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null) || v=; \
		v=$${v#v}; \
	fi; \
	v=$${v:-1.0.0-dev}; \
	mkdir -p $(OUT); \
	set -- -trimpath -buildvcs=false -ldflags "-s -w -X aioc/lib/cli.version=$$v" -o $(OUT)/ ./cmd/...; \
	echo "CGO_ENABLED=0 $(GO) build $$*"; \
	CGO_ENABLED=0 $(GO) build "$$@"

demo: all
	@PATH="$$PWD/bin:$$PATH" sh lib/regress/testdata/demo.sh

# The race detector needs cgo, hence a C compiler, and a system that has it.
# Whether it works here is found by linking a program with it.
test:
	@d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; trap 'exit 1' HUP INT TERM; \
	printf 'package main\n\nfunc main() {}\n' >"$$d/main.go"; \
	if CGO_ENABLED=1 $(GO) build -race -o "$$d/main" "$$d/main.go" 2>/dev/null && "$$d/main"; then \
		echo "CGO_ENABLED=1 $(GO) test -race -shuffle=on ./..."; \
		CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...; \
	else \
		echo "no C compiler, or no race detector for this system: testing without it"; \
		CGO_ENABLED=0 $(GO) test -shuffle=on ./...; \
	fi
	@echo "GOMAXPROCS=1 $(GO) test -shuffle=on (what runs concurrently)"; \
	GOMAXPROCS=1 CGO_ENABLED=0 $(GO) test -shuffle=on $$($(GO) list ./lib/... | grep -E '/lib/($(CONCURRENT))$$')

race:
	CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...

lint:
	@for tool in "$(GO)" "$(GOFMT)" mandoc shellcheck; do \
		command -v "$$tool" >/dev/null || { \
			echo "lint: $$tool is missing: install the package that has it (golang, mandoc, shellcheck)" >&2; \
			exit 1; \
		}; \
	done
	@bad=$$($(GOFMT) -l cmd lib); \
	[ -z "$$bad" ] || { echo "lint: run gofmt -w on:" $$bad >&2; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet -tags interop,bridge ./...
	$(GO) run $(STATICCHECK) -tags interop,bridge ./...
	mandoc -T lint -W warning man/*.[1-8]
	find .ci cmd lib \( -name '*.sh' -o -name run \) -type f -exec shellcheck -x -P SCRIPTDIR {} +
	shellcheck -s bash cmd/*/*.bash
	shellcheck -s sh -e SC1091,SC2034,SC2154 cmd/*/*.openrc cmd/*/*.rc
	@for system in darwin/arm64 freebsd/amd64 linux/arm; do \
		echo "GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) build ./..."; \
		GOOS=$${system%/*} GOARCH=$${system#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./... || exit 1; \
	done

interop:
	$(GO) test -tags interop -run Interop -count=1 -timeout 20m -v ./lib/regress/

crashtest: all
	$(GO) run ./lib/regress/crashtest -bin bin -n $(KILLS)

bridge:
	$(GO) test -tags bridge -run Bridge -count=1 -timeout 15m -v ./lib/regress/

bench: all
	$(GO) run ./lib/regress/bench -bin bin

fuzz:
	@for package in $$($(GO) list ./...); do \
		targets=$$($(GO) test -list '^Fuzz' "$$package") || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
		done; \
	done

# Programs and pages, completions, units of systemd, and for other service
# managers scripts below $(DATADIR)/aioc. Paths in them are made to fit.
# A configuration is never written.
install:
	@[ -x $(OUT)/aioc-send ] || $(MAKE) all
	@set -eu; $(FILES); \
	put() { \
		echo "install $$3"; mkdir -p "$(DESTDIR)$${3%/*}"; install -m "$$1" "$$2" "$(DESTDIR)$$3"; \
	}; \
	fit() { \
		echo "install $$3"; mkdir -p "$(DESTDIR)$${3%/*}"; \
		sed 's|/usr/bin/aioc-|$(BINDIR)/aioc-|g; s|/etc/aioc|$(SYSCONFDIR)/aioc|g' "$$2" >"$(DESTDIR)$$3.new"; \
		chmod "$$1" "$(DESTDIR)$$3.new"; mv "$(DESTDIR)$$3.new" "$(DESTDIR)$$3"; \
	}; \
	files

uninstall:
	@set -eu; $(FILES); \
	put() { rm -f "$(DESTDIR)$$3"; }; \
	fit() { put "$$@"; }; \
	files; \
	rmdir "$(DESTDIR)$(DATADIR)/aioc" 2>/dev/null || :

# What is installed: files calls put, or fit if paths are to be changed, with
# mode, source and place.
FILES = files() { \
		for main in cmd/*/main.go; do \
			dir=$${main%/main.go}; name=$${dir\#cmd/}; \
			put 755 "$(OUT)/$$name" "$(BINDIR)/$$name"; \
			put 644 "$$dir/$$name.bash" "$(DATADIR)/bash-completion/completions/$$name"; \
			put 644 "$$dir/_$$name" "$(DATADIR)/zsh/site-functions/_$$name"; \
			put 644 "$$dir/$$name.fish" "$(DATADIR)/fish/vendor_completions.d/$$name.fish"; \
		done; \
		for page in man/*.[1-8]; do \
			put 644 "$$page" "$(MANDIR)/man$${page\#\#*.}/$${page\#man/}"; \
		done; \
		for unit in cmd/*/*.service cmd/*/*.socket; do \
			fit 644 "$$unit" "$(SYSTEMDDIR)/systemd/system/$${unit\#\#*/}"; \
		done; \
		fit 644 cmd/aioc-server/aioc.sysusers "$(SYSTEMDDIR)/sysusers.d/aioc.conf"; \
		fit 644 cmd/aioc-server/aioc.tmpfiles "$(SYSTEMDDIR)/tmpfiles.d/aioc.conf"; \
		for script in cmd/*/*.openrc cmd/*/*.rc; do \
			fit 755 "$$script" "$(DATADIR)/aioc/$${script\#\#*/}"; \
		done; \
	}

deb:
	@command -v dpkg-deb >/dev/null || { echo "deb: dpkg-deb is missing: install the package dpkg" >&2; exit 1; }
	@VERSION='$(VERSION)' GO='$(GO)' MAKE='$(MAKE)' sh .ci/deb.sh

systemd:
	@package=$$(VERSION='$(VERSION)' GO='$(GO)' MAKE='$(MAKE)' sh .ci/deb.sh) && \
	lib/regress/testdata/systemd/boot.sh "$$package"

completions: all
	$(GO) run ./lib/regress/complete -bin $(OUT)

clean:
	rm -rf $(OUT)

.PHONY: all demo test race lint interop bridge crashtest bench fuzz install uninstall deb systemd completions clean
