# SPDX-License-Identifier: BSD-2-Clause
# Builds Socle, dom0's and the guests' images, and runs them and their tests. `make help` lists the targets.

VERSION := 0.1
B := build
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all

# ---- the hypervisor: build/socle.elf -------------------------------------------------------------
PARTS := boot core svm vmx drivers
C_SOURCES := $(wildcard $(PARTS:%=%/*.c))
ASM_SOURCES := $(wildcard $(PARTS:%=%/*.asm))
OBJECTS := $(C_SOURCES:%.c=$(B)/obj/%.o) $(ASM_SOURCES:%.asm=$(B)/obj/%.asm.o)

# make V=@ shows each compilation
V := @:
CC := gcc
LD := ld
NASM := nasm
WARNINGS := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wvla
CFLAGS := -std=c11 -ffreestanding -mgeneral-regs-only -mno-red-zone -mcmodel=kernel -fno-pic -fno-pie \
    -O2 -g -fno-omit-frame-pointer -fno-stack-protector -fcf-protection=none -fno-common \
    -fno-strict-aliasing -fno-asynchronous-unwind-tables $(WARNINGS) -Wframe-larger-than=1024 \
    -ffile-prefix-map=$(CURDIR)=. -I. -DSOCLE_VERSION=\"$(VERSION)\"
NASMFLAGS := -f elf64 -g -F dwarf -I ./ -w+all -w-unknown-warning -Werror
LDFLAGS := -T linker.ld -nostdlib -static -z max-page-size=4096 -z noexecstack --build-id=sha1

# Every object also depends on the Makefile, so that a change of flags rebuilds.
$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(V) echo "  CC    $<"
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.asm.o: %.asm Makefile
	@mkdir -p $(@D)
	$(V) echo "  NASM  $<"
	@$(NASM) $(NASMFLAGS) -MD $(@:.o=.d) -MT $@ -MP -o $@ $<

-include $(OBJECTS:.o=.d)

# Two links: the first has an empty table of function names; the table made from it goes into the second.
# It is the last part of .rodata, so no function moves; the comparison at the end makes sure of that.
symtab_of = nm -n $(1) | awk -f core/symtab.awk
$(B)/socle.elf: $(OBJECTS) linker.ld core/symtab.awk
	@echo "  LD    $@"
	@awk -f core/symtab.awk </dev/null >$(B)/obj/symtab0.asm && \
	    $(NASM) -f elf64 -o $(B)/obj/symtab0.o $(B)/obj/symtab0.asm
	@$(LD) $(LDFLAGS) -o $(B)/obj/first.elf $(OBJECTS) $(B)/obj/symtab0.o
	@$(call symtab_of,$(B)/obj/first.elf) >$(B)/obj/symtab.asm && \
	    $(NASM) -f elf64 -o $(B)/obj/symtab.o $(B)/obj/symtab.asm
	@$(LD) $(LDFLAGS) -Map=$(B)/socle.map -o $@ $(OBJECTS) $(B)/obj/symtab.o
	@$(call symtab_of,$@) | cmp -s - $(B)/obj/symtab.asm || \
	    { echo "$@: functions moved in the second link: .rodata.symtab must come after .text" >&2; exit 1; }

.PHONY: elf
elf: $(B)/socle.elf

# ---- tests on the host: unit tests, fuzzers, formatting, clang-tidy ------------------------------
# A test names what it is built from in its first lines: `// SOURCES: core/a.c core/b.c`, and libraries
# beyond cmocka as `// LIBS: -lfoo`. host.c (panic, log) and core/lib.c always come along.
HOST_ALWAYS := tests/unit/host.c $(wildcard core/lib.c)
UNIT_TESTS := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
HOST_FLAGS := -std=gnu11 -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all $(WARNINGS) -I. \
    -DSOCLE_HOST -DSOCLE_VERSION=\"$(VERSION)\"
UNIT_CC := gcc $(HOST_FLAGS) -fsanitize=address,undefined
FUZZ_CC := clang $(HOST_FLAGS) -Wno-missing-prototypes
FUZZTIME ?= 5

$(B)/unit/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@$(UNIT_CC) -MMD -MP -c -o $@ $<

$(B)/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@$(FUZZ_CC) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c -o $@ $<

said_in = $(shell sed -n 's|^// *$(1): *||p' $(2))
link_unit := $(UNIT_CC)
libs_unit := -lcmocka
link_fuzz := $(FUZZ_CC) -fsanitize=fuzzer,address,undefined
# $(1): unit or fuzz, $(2): the program
define host_program
$(B)/$(1)/$(2): $(patsubst %.c,$(B)/$(1)/obj/%.o,$(sort tests/$(1)/$(2).c $(HOST_ALWAYS) \
    $(call said_in,SOURCES,tests/$(1)/$(2).c)))
	@$(link_$(1)) -o $$@ $$^ $(call said_in,LIBS,tests/$(1)/$(2).c) $(libs_$(1))
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call host_program,unit,$(t))))
$(foreach t,$(FUZZ_TARGETS),$(eval $(call host_program,fuzz,$(t))))
-include $(wildcard $(B)/unit/obj/*/*.d $(B)/unit/obj/*/*/*.d $(B)/fuzz/obj/*/*.d $(B)/fuzz/obj/*/*/*.d)

.PHONY: unit-programs fuzz-programs
unit-programs: $(UNIT_TESTS:%=$(B)/unit/%)
fuzz-programs: $(FUZZ_TARGETS:%=$(B)/fuzz/%)

TIDY_SOURCES := $(C_SOURCES)
TIDY_FLAGS := -std=c11 -ffreestanding -mgeneral-regs-only -I. -DSOCLE_VERSION=\"$(VERSION)\"
HEADERS := $(wildcard $(PARTS:%=%/*.h))
$(B)/tidy/%.ok: % $(HEADERS) .clang-tidy
	@mkdir -p $(@D)
	@out=$$(clang-tidy --quiet $< -- $(TIDY_FLAGS) 2>&1) || { echo "$$out" >&2; exit 1; }
	@touch $@

FORMATTED := $(wildcard $(PARTS:%=%/*.[ch]) tests/unit/*.[ch] tests/fuzz/*.[ch] tests/guests/*.[ch] \
    tests/bench/*.[ch] tests/emulator/*.[ch] dom0-shim/*.h dom0-shim/soclectl/*.[ch])
.PHONY: tidy format format-check check unit fuzz
tidy: $(TIDY_SOURCES:%=$(B)/tidy/%.ok)
format:
	clang-format -i $(FORMATTED)
format-check:
	@bad=0; for f in $(FORMATTED); do \
	    clang-format $$f | cmp -s - $$f || { echo "$$f: not formatted (make format)" >&2; bad=1; }; \
	done; exit $$bad

unit fuzz: %:
	@FUZZTIME=$(FUZZTIME) MAKE="$(MAKE)" tests/check.sh $@
check: elf $(DOM0_TOP)
	@FUZZTIME=$(FUZZTIME) MAKE="$(MAKE)" tests/check.sh unit fuzz format tidy

# ---- dom0's module and command, the images, the ISO ----------------------------------------------
IMAGE := dom0-shim/image
KERNEL_VERSION = $(shell cat $(B)/cache/kernel-version)

$(B)/cache/kernel-version: $(IMAGE)/kernel.sh $(IMAGE)/lib.sh
	@$(IMAGE)/kernel.sh

# The module needs the headers of exactly the kernel that dom0 runs.
$(B)/socle.ko: $(B)/cache/kernel-version $(wildcard dom0-shim/kmod/*) $(wildcard core/abi*.h)
	@$(MAKE) --no-print-directory install-packages PACKAGES=linux-headers-$(KERNEL_VERSION)
	@echo "  KMOD  $@"
	@mkdir -p $(B)/kmod
	@$(MAKE) --no-print-directory -C dom0-shim/kmod BUILD=$(CURDIR)/$(B)/kmod \
	    KDIR=/usr/src/linux-headers-$(KERNEL_VERSION) >$(B)/kmod.log 2>&1 || \
	    { grep -A4 'error:' $(B)/kmod.log >&2; tail -n 3 $(B)/kmod.log >&2; exit 1; }
	@cp $(B)/kmod/socle.ko $@

CTL_SOURCES := $(wildcard dom0-shim/soclectl/*.c)
$(B)/soclectl: $(CTL_SOURCES) $(wildcard dom0-shim/soclectl/*.h core/abi*.h dom0-shim/*.h)
	@echo "  CC    $@"
	@gcc -std=gnu11 -O2 -g -static $(WARNINGS) -I. -DSOCLE_VERSION=\"$(VERSION)\" -o $@ $(CTL_SOURCES)

GUEST := $(B)/guest/vmlinuz $(B)/guest/initrd.img $(B)/guest/disk.img
$(GUEST) &: $(B)/cache/kernel-version $(addprefix $(IMAGE)/,guest.sh guest-init guest-rc guest-grub.cfg common lib.sh)
	@mkdir -p $(B)/guest
	@$(IMAGE)/guest.sh

$(B)/dom0/vmlinuz $(B)/dom0/base.img $(B)/dom0/small-base.img &: $(GUEST) $(IMAGE)/dom0.sh $(IMAGE)/lib.sh
	@$(IMAGE)/dom0.sh base

# Sources that are not there yet make an image without their program; sources that do not build stop it.
DOM0_TOP := $(if $(wildcard dom0-shim/kmod/Kbuild),$(B)/socle.ko) $(if $(CTL_SOURCES),$(B)/soclectl)
$(B)/dom0/initrd.img $(B)/dom0/small.img &: $(B)/dom0/base.img $(DOM0_TOP) $(wildcard $(IMAGE)/dom0-* $(IMAGE)/socle-*) $(IMAGE)/common
	@$(IMAGE)/dom0.sh initrd

# Bochs takes a minute to unpack the kernel, so its machines get one that is not compressed.
$(B)/dom0/vmlinuz-flat: BEHIND := 0x200000
$(B)/guest/vmlinuz-flat: BEHIND := 0x100000
$(B)/%/vmlinuz-flat: $(B)/%/vmlinuz $(addprefix tests/emulator/flat_kernel,.py .asm)
	@echo "  FLAT  $@"
	@$(NASM) -f bin -DKERNEL=$(BEHIND) -o $(@D)/flat_kernel.bin tests/emulator/flat_kernel.asm
	@/usr/bin/python3 tests/emulator/flat_kernel.py $< $(@D)/flat_kernel.bin $(BEHIND) $@

DOM0_CMDLINE ?= console=tty0 console=ttyS0 quiet cryptomgr.notests
$(B)/socle.iso: $(B)/socle.elf $(B)/dom0/vmlinuz $(B)/dom0/initrd.img $(IMAGE)/mkiso.sh Makefile
	@echo "  ISO   $@"
	@$(IMAGE)/mkiso.sh $@ '$(DOM0_CMDLINE)'

.PHONY: kmod soclectl images iso bochs-images
bochs-images: $(B)/dom0/vmlinuz-flat $(B)/guest/vmlinuz-flat $(B)/dom0/small.img
kmod: $(B)/socle.ko
soclectl: $(B)/soclectl
images: $(B)/dom0/vmlinuz $(B)/dom0/initrd.img $(GUEST)
iso: $(B)/socle.iso

# ---- test guests: build/tests/guests/*.elf ----------------------------------------------------------
-include tests/guests/guests.mk

# ---- tests' programs for dom0: build/tests/emulator/ ------------------------------------------------
-include tests/emulator/programs.mk

# ---- KVM's own selftests: build/selftests/bin/ ----------------------------------------------------
-include tests/emulator/selftests.mk

# ---- what a user types ---------------------------------------------------------------------------
MACHINE ?= svm-2
MACHINES ?= svm-1 svm-2
TESTS ?=
BUILD_PACKAGES := gcc libc6-dev make nasm binutils mawk cpio zstd kmod e2fsprogs fdisk grub-common grub-pc-bin xorriso \
    mtools busybox-static qemu-system-x86 qemu-system-data seabios ipxe-qemu python3 dpkg
BOCHS_PACKAGES := bochs bochsbios vgabios
TEST_PACKAGES := libcmocka-dev libzydis-dev clang clang-tidy clang-format libclang-rt-dev python3-pytest \
    python3-pytest-xdist ovmf qemu-utils $(if $(filter 1,$(FULL)),stress-ng) $(BOCHS_PACKAGES)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Asks apt only where a package is missing.
install-packages:
	@missing=$$(for p in $(PACKAGES); do \
	    dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done | tr '\n' ' '); \
	[ -z "$$missing" ] && exit 0; \
	echo "  APT   $$missing"; \
	install() { $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    -o Dpkg::Use-Pty=0 $$missing >$(B)/apt.log 2>&1; }; \
	mkdir -p $(B); install || { $(SUDO) apt-get -qq update && install; } || { cat $(B)/apt.log >&2; exit 1; }

deps: PACKAGES := $(BUILD_PACKAGES)
deps: install-packages
deps-test: PACKAGES := $(BUILD_PACKAGES) $(TEST_PACKAGES)
deps-test: install-packages

all: elf images iso
BOCHS := $(filter vmx-% svm-bochs% bochs%,$(MACHINE))
run: PACKAGES := $(BUILD_PACKAGES) $(if $(BOCHS),$(BOCHS_PACKAGES))
run: install-packages
	@$(MAKE) -s --no-print-directory iso $(if $(BOCHS),bochs-images)
	@exec /usr/bin/python3 tests/emulator/machine.py run $(MACHINE)
test: deps-test
	@$(MAKE) -s --no-print-directory elf images iso bochs-images guests-elf selftests-programs dom0-programs
	@FUZZTIME=$(FUZZTIME) MAKE="$(MAKE)" MACHINES="$(MACHINES)" TESTS="$(TESTS)" tests/check.sh \
	    unit fuzz format tidy emulator
BENCH_BOCHS := $(if $(filter --no-vmx,$(BENCHFLAGS)),,y)
bench: PACKAGES := $(BUILD_PACKAGES) $(if $(BENCH_BOCHS),$(BOCHS_PACKAGES))
bench: install-packages
	@$(MAKE) -s --no-print-directory elf images guests-elf $(if $(BENCH_BOCHS),$(B)/dom0/vmlinuz-flat)
	@/usr/bin/python3 tests/bench/bench.py $(BENCHFLAGS)
clean: # the downloaded packages stay; rm -rf build removes those too
	@cd $(B) 2>/dev/null && find . -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} + || true

define HELP
make run      builds all, boots it in QEMU from the GRUB ISO: a shell in dom0, one guest running
              (MACHINE=svm-4: another emulated machine, here with 4 processors; MACHINE=bochs: an
              Intel processor, vmx-haswell, in Bochs, with dom0's shell)
make test     all tests (MACHINES="svm-1 svm-2": emulated machines; TESTS=pattern: only these emulator tests)
make check    the fast tests: unit, fuzz, format, clang-tidy
make fuzz     the fuzzers (FUZZTIME=600: seconds each)
make selftests  KVM's own selftests in dom0 (TESTS="cpuid xapic": only those)
make bench    costs of exits beside Linux's KVM on the same emulated machine, and on an Intel processor in Bochs
              (BENCHFLAGS=--json: for programs, --no-vmx: without Bochs)
make          builds all: build/socle.elf, socle.iso, socle.ko, dom0/, guest/
make elf | kmod | soclectl | images | iso      single parts
make format   formats the C sources
make deps     installs missing Debian packages (run and test do so themselves)
make clean    removes what was built; downloads stay in build/cache
endef
export HELP
help:
	@echo "$$HELP"
.PHONY: all run test bench clean help deps deps-test install-packages
