# aioc: a secure asynchronous message queue for the shell
#
# make          build all programs into bin/
# make demo     two connectors on this host, and messages through them
# make test     all tests; needs Go and make only
# make lint     formatting, vet, staticcheck, pages, scripts, other systems
# make interop  together with the Python program aioconnectors (needs Python)
# make bench    how fast it is
# make fuzz     every fuzz target, each for FUZZTIME
# make race     the tests with the race detector, or an error without it
# make install  below $(DESTDIR)$(PREFIX); uninstall removes the same files
#
# GOFLAGS, GOOS and the like work as everywhere with Go.

.POSIX:

PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
DESTDIR =
GO = go
GOFMT = gofmt
FUZZTIME = 30s
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
	mkdir -p bin; \
	set -- -trimpath -buildvcs=false -ldflags "-s -w -X aioc/lib/cli.version=$$v" -o bin/ ./cmd/...; \
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
	$(GO) vet -tags interop ./...
	$(GO) run $(STATICCHECK) -tags interop ./...
	mandoc -T lint -W warning man/*.[1-8]
	find .ci/run cmd lib \( -name '*.sh' -o -name run \) -type f -exec shellcheck -x -P SCRIPTDIR {} +
	@for system in darwin/arm64 freebsd/amd64 linux/arm; do \
		echo "GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) build ./..."; \
		GOOS=$${system%/*} GOARCH=$${system#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./... || exit 1; \
	done

interop:
	$(GO) test -tags interop -run Interop -count=1 -timeout 15m -v ./lib/regress/

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

install:
	@[ -x bin/aioc-send ] || $(MAKE) all
	mkdir -p "$(DESTDIR)$(BINDIR)"
	@for main in cmd/*/main.go; do \
		program=$${main%/main.go}; program=$${program#cmd/}; \
		echo "install $$program"; \
		install -m 755 "bin/$$program" "$(DESTDIR)$(BINDIR)/$$program" || exit 1; \
	done
	@for page in man/*.[1-8]; do \
		section="$(DESTDIR)$(MANDIR)/man$${page##*.}"; \
		echo "install $${page#man/}"; \
		mkdir -p "$$section" && install -m 644 "$$page" "$$section/$${page#man/}" || exit 1; \
	done

uninstall:
	@for main in cmd/*/main.go; do \
		program=$${main%/main.go}; \
		rm -f "$(DESTDIR)$(BINDIR)/$${program#cmd/}" || exit 1; \
	done
	@for page in man/*.[1-8]; do \
		rm -f "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page#man/}" || exit 1; \
	done

clean:
	rm -rf bin

.PHONY: all demo test race lint interop bench fuzz install uninstall clean
