# SPDX-License-Identifier: GPL-2.0
#
# Thin front of smc_rs. The module's own build rules are in Kbuild (kbuild reads that file and
# not this one); the build root and the virtual machines are in tools/testing/.

# A kernel series of trixie-backports (7.3, 7.2), or forky's own kernel: forky.
KERNEL ?= 7.3
# A kernel build tree with Rust metadata; with it nothing else is needed or fetched.
KDIR ?=

ROOT := tools/testing/buildroot
RIG := tools/testing/qemu

# Where the tools go: DESTDIR/PREFIX; to the same root as the module, if nothing else is said.
PREFIX ?= /usr/local
DESTDIR ?= $(INSTALL_MOD_PATH)

export INSTALL_MOD_PATH

.PHONY: all module tools install install-module install-tools uninstall uninstall-module uninstall-tools deb bench bench-fallback clean distclean help setup check-env check fmt fuzz demo demo-failover demo-erdma test-erdma vm shell test test-debug test-hostile test-apps test-interop soak calls root-shell
.DEFAULT_GOAL := all

all: module

ifneq ($(KDIR),)

kernel_config = $(firstword $(wildcard $(KDIR)/include/config/auto.conf $(KDIR)/.config))
kernel_rustc = $(shell sed -n 's/^CONFIG_RUSTC_VERSION_TEXT=//p' $(kernel_config) 2>/dev/null | tr -d '"')
RUSTC ?= rustc
this_rustc = $(shell $(RUSTC) --version 2>/dev/null)

check-env:
	@test -n "$(kernel_config)" || \
	  { echo "smc_rs: error: $(KDIR) is no configured kernel build tree (no include/config/auto.conf): name one with KDIR=, or leave KDIR out to use the build root" >&2; exit 1; }
	@test -e "$(KDIR)/rust/libkernel.rmeta" || \
	  { echo "smc_rs: error: $(KDIR) has no Rust metadata (rust/libkernel.rmeta), which Debian's headers packages leave out: run 'make modules_prepare' there with CONFIG_RUST=y, or leave KDIR out to use the build root" >&2; exit 1; }
	@test "$(kernel_rustc)" = "$(this_rustc)" || \
	  { echo "smc_rs: error: wrong rustc: the kernel in $(KDIR) was built by '$(kernel_rustc)', this one is '$(this_rustc)': put the same rustc first on PATH or name it with RUSTC=" >&2; exit 1; }

module: check-env
	+$(MAKE) -C $(KDIR) M=$(CURDIR) modules

install-module: module
	+$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install
	depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $$($(MAKE) -s --no-print-directory -C $(KDIR) kernelrelease)

uninstall-module:
	release=$$($(MAKE) -s --no-print-directory -C $(KDIR) kernelrelease) && \
	  rm -f $(INSTALL_MOD_PATH)/lib/modules/$$release/updates/smc_rs.ko* && \
	  depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $$release

clean:
	+$(MAKE) -C $(KDIR) M=$(CURDIR) clean

else

check-env setup:
	@$(ROOT)/ensure $(KERNEL)

module:
	@$(ROOT)/build $(KERNEL)
	@$(ROOT)/install $(KERNEL) show

install-module: module
	@$(ROOT)/install $(KERNEL) install

uninstall-module:
	@$(ROOT)/install $(KERNEL) uninstall

clean:
	@$(ROOT)/install $(KERNEL) clean

endif

# The build root and everything made with it; the next run makes it anew.
distclean:
	@$(ROOT)/install $(KERNEL) distclean

install: install-module
	+@$(MAKE) --no-print-directory install-tools

uninstall: uninstall-module uninstall-tools

# The tools, with the library that smc_run preloads, man pages and completions.
tools:
	@tools/smc-tools/build build

install-tools: tools
	@tools/smc-tools/build install "$(DESTDIR)$(PREFIX)"

uninstall-tools:
	@tools/smc-tools/build uninstall "$(DESTDIR)$(PREFIX)"

# A Debian package of the tools; the last line is its file.
deb: tools
	@tools/smc-tools/build deb

check:
	@$(RIG)/check

# Formats with the same rustfmt that `make check` asks.
fmt: setup
	@$(ROOT)/enter trixie sh -c 'rustfmt --edition 2021 smc_rs.rs; for c in tools/testing/*/Cargo.toml tools/smc-tools/Cargo.toml; do (cd $${c%/*} && cargo fmt --all); done'

# FUZZ='llc 600': one target, and for how many seconds; FUZZ=--coverage, FUZZ=--minimize: see the script.
fuzz:
	@tools/testing/fuzz/run $(FUZZ)

demo:
	@$(RIG)/demo $(KERNEL)

demo-failover:
	@$(RIG)/demo $(KERNEL) failover

# Two machines with an emulated eRDMA adapter each. C=no: without the C implementation and its kernel.
demo-erdma:
	@tools/testing/erdma-sim/demo $(KERNEL) $(if $(filter no,$(C)),no-c)

# BENCH='--only redis': options of the runner.
bench:
	@tools/testing/bench/run $(BENCH)

bench-fallback:
	@$(RIG)/bench-fallback $(KERNEL)

vm shell:
	@$(RIG)/vm --kernel $(KERNEL) --shell

test:
	@$(RIG)/test $(KERNEL) $(SUITES)

# The selftests on two kernels of our own: lockdep, debug objects, kmemleak, refused memory; and KASAN. SUITES='memory': these lines of suites-debug.
test-debug:
	@$(RIG)/test debug $(SUITES)

# A peer of our own over raw verbs that says and writes what no peer may.
test-hostile:
	@$(RIG)/test --list suites-hostile $(KERNEL)

# Everything at once, at random, for so many minutes; KERNEL=debug, kasan: on that kernel. PHASE=: begin with this phase of the seed.
soak: minutes = $(or $(MINUTES),10)
soak:
	@$(RIG)/vm --kernel $(KERNEL) --name soak --timeout $$(($(minutes) * 60 + 1200)) -- \
	  'smc-selftest soak --minutes $(minutes) $(if $(SEED),--seed $(SEED)) $(if $(PHASE),--phase $(PHASE))'

# System calls at random, with hostile arguments; as soak. KERNEL=kasan: guided by what they reach of the module.
calls: minutes = $(or $(MINUTES),10)
calls:
	@$(RIG)/vm --kernel $(KERNEL) --name calls --timeout $$(($(minutes) * 60 + 900)) -- \
	  'smc-selftest calls --minutes $(minutes) $(if $(SEED),--seed $(SEED)) $(if $(PHASE),--phase $(PHASE))'

# APPS='--only redis,ssh': options of the runner.
test-apps:
	@tools/testing/apps/run $(KERNEL) $(APPS)

# PEER=newest: the lean kernel's C instead of Debian 13's. INTEROP='--pair rust-c --filter close': options of the runner.
test-interop:
	@tools/testing/interop/run $(KERNEL) $(if $(PEER),--peer $(PEER)) $(INTEROP)

# The emulated eRDMA adapter under mainline's driver and smc_rs.
test-erdma:
	@tools/testing/erdma-sim/test $(KERNEL)

root-shell:
	@$(ROOT)/ensure $(KERNEL) && $(ROOT)/install $(KERNEL) root-shell

help:
	@echo 'make                 build smc_rs.ko for the stock Debian kernel KERNEL=, in a build root'
	@echo 'make KDIR=DIR        build against a kernel tree that has its Rust metadata'
	@echo 'make install         the module and the tools, as the next two do; make uninstall takes them away'
	@echo 'make install-module  put the module under /lib/modules and run depmod (with KDIR= or KERNEL=)'
	@echo 'make install-tools   build the tools (smcss, smcr, ...) and put them, with man pages and completions, under'
	@echo '                     DESTDIR= and PREFIX= (/usr/local)'
	@echo 'make uninstall-module, make uninstall-tools   take these away'
	@echo 'make deb             a Debian package of the tools; the last line is its file'
	@echo 'make demo            boot the kernel with two hosts: Redis, nginx and iperf3 over SMC-R beside TCP'
	@echo 'make demo-failover   Redis under load over two links, one of which is pulled and put back: no client sees an error'
	@echo 'make demo-erdma      two machines with an emulated eRDMA adapter each: the same programs and PostgreSQL, and what they'
	@echo '                     cost over TCP, C SMC-R (C=no: without it, and its kernel) and smc_rs'
	@echo 'make test            everything that proves the project; the last line counts'
	@echo 'make test-debug      the selftests on a kernel with lockdep, debug objects, kmemleak and fault injection, and on one with KASAN'
	@echo '                     (built once, 15 and 20 minutes); the last line counts'
	@echo 'make test-hostile    a peer over raw verbs that says and writes what no peer may; the last line counts'
	@echo 'make soak            connections of all kinds while devices, links, packets, settings come and go at random, and every byte'
	@echo '                     is compared: MINUTES=10 SEED=n (the same seed does the same again; it is printed), KERNEL=debug'
	@echo 'make calls           system calls at random, with hostile arguments, on sockets of all kinds: MINUTES=10 SEED=n, KERNEL=debug or'
	@echo '                     kasan'
	@echo 'make bench           TCP, C SMC-R and smc_rs on one lean kernel, by instructions; fails if a row got 3 % worse'
	@echo 'make bench-fallback  what a fallback costs, in instructions beside plain TCP; fails above 3 %'
	@echo 'make test-apps       programs that nobody here wrote over TCP and over SMC-R; the table; the last line counts'
	@echo 'make test-interop    two machines on a wire, smc_rs and Debian 13'"'"'s own kernel with C net/smc; the last line counts'
	@echo '                     PEER=newest: the lean kernel of make bench instead'
	@echo 'make test-erdma      the emulated eRDMA adapter: verbs, iWARP, faults under traffic; the last line counts'
	@echo 'make check           the quick part: formatting, clippy, host tests, lints; no kernel'
	@echo 'make fuzz            libFuzzer over the parsers and the simulation, each target for a minute (FUZZ="llc 600": one, in seconds);'
	@echo '                     FUZZ=--coverage: what the corpus reaches, by file'
	@echo 'make fmt             format all Rust sources with the build root'"'"'s rustfmt'
	@echo 'make vm              boot the kernel with two hosts and the module loaded, and give a shell'
	@echo 'make root-shell      a shell in the build root (checkout: /src, cache: /cache)'
	@echo 'make setup           make the build root for KERNEL= now'
	@echo 'make clean           remove built modules; make distclean: the build root and the cache too'
	@echo
	@echo 'KERNEL=7.3 (default), 7.2: trixie-backports; KERNEL=forky: its own. SMC_REFRESH=1: look for a newer revision.'
	@echo 'The cache is $$XDG_CACHE_HOME/smc_rs, or ~/.cache/smc_rs.'
