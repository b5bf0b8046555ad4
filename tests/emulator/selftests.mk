# SPDX-License-Identifier: BSD-2-Clause
# Builds KVM's own selftests that selftests.list names, statically, out of Debian's linux-source: only their part of it
# is unpacked. The kernel's user headers are those of linux-libc-dev, the same version's.
SELFTESTS := $(B)/selftests
SELFTESTS_LIST := tests/emulator/selftests.list
SELFTESTS_TARBALL := /usr/src/linux-source-6.1.tar.xz
SELFTESTS_NAMES := $(shell awk '/^[a-z]/ && $$1 != "without" { print $$1 }' $(SELFTESTS_LIST) | sort -u)
SELFTESTS_TREE := $(SELFTESTS)/tree/tools
SELFTESTS_KVM := $(SELFTESTS_TREE)/testing/selftests/kvm
SELFTESTS_LIB := assert.c elf.c guest_modes.c io.c kvm_util.c perf_test_util.c rbtree.c sparsebit.c string_override.c \
    test_util.c $(addprefix x86_64/,apic.c handlers.S perf_test_util.c processor.c svm.c ucall.c vmx.c)
# linux/stddef.h and the old name of an assertion: what the tests of this release take for granted.
SELFTESTS_FLAGS := -O2 -g -std=gnu99 -w -U_FORTIFY_SOURCE -fno-stack-protector -fno-pie -include linux/stddef.h \
    -DTEST_ASSERT_EQ=ASSERT_EQ -I$(SELFTESTS_TREE)/include -I$(SELFTESTS_TREE)/arch/x86/include \
    -I$(SELFTESTS_KVM)/include -I$(SELFTESTS_KVM)/include/x86_64 -I$(SELFTESTS_TREE)/testing/selftests{,/rseq}

# The IPI test waits for 2e9 ticks of the TSC; on a loaded computer an emulated processor may stand still for longer.
# A wake-up that is lost fails with ten times that too. The dirty log's test takes 1 GiB, which not all machines have; its
# dirty ring (-c) must be smaller than its memory, for only a full ring ends a round. Migrations between processors, and
# programs that are killed, are fewer, and a guest gets more than 2 s for what it has to do: an emulated processor is slow.
# QEMU (from 7.2.12 on) makes no single-step trap behind an STI, only behind the instruction after it.
$(SELFTESTS)/unpacked: tests/emulator/selftests.mk
	@$(MAKE) --no-print-directory install-packages PACKAGES="linux-source-6.1 xz-utils"
	@echo "  UNPACK $(SELFTESTS_TARBALL)"
	@mkdir -p $(SELFTESTS)/tree
	@tar -xJf $(SELFTESTS_TARBALL) -C $(SELFTESTS)/tree --strip-components=1 --wildcards \
	    linux-source-6.1/tools/{include,lib,arch/x86/include} \
	    'linux-source-6.1/tools/testing/selftests/kselftest*.h' linux-source-6.1/tools/testing/selftests/{kvm,rseq}
	@sed -i 's/tsc_start < 2000000000)/tsc_start < 20000000000)/' $(SELFTESTS_KVM)/x86_64/xapic_ipi_test.c
	@sed -i 's/DIRTY_MEM_BITS 30/DIRTY_MEM_BITS 24/' $(SELFTESTS_KVM)/dirty_log_test.c
	@sed -i 's/NR_TASK_MIGRATIONS 100000/NR_TASK_MIGRATIONS 500/' $(SELFTESTS_KVM)/rseq_test.c
	@sed -i 's/alarm(2)/alarm(30)/' $(SELFTESTS_KVM)/memslot_perf_test.c
	@sed -i 's/FORK_NUM (1ULL << 9)/FORK_NUM (1ULL << 3)/' $(SELFTESTS_KVM)/hardware_disable_test.c
	@sed -i '/debugreg.7. = 0x00000400;/,/vcpu_run/ s/vcpu_run(vcpu);/&\n\t\tif (!i \&\& run->debug.arch.pc == target_rip + ss_size[1])\n\t\t\ttarget_rip += ss_size[++i];/' \
	    $(SELFTESTS_KVM)/x86_64/debug_regs.c
	@touch $@

# Our own, which use their library
$(SELFTESTS)/obj/api/%.o: tests/emulator/api/%.c $(SELFTESTS)/unpacked
	@mkdir -p $(@D)
	@gcc $(SELFTESTS_FLAGS) -Wall -Wextra -Wno-pointer-arith -Wno-sign-compare -Wno-unused-parameter -c -o $@ $<

$(SELFTESTS)/obj/%.o: $(SELFTESTS)/unpacked
	@mkdir -p $(@D)
	@gcc $(SELFTESTS_FLAGS) $(if $(filter lib/string_override%,$*),-ffreestanding) -I$(SELFTESTS_KVM)/$(dir $*) -c \
	    -o $@ $(firstword $(wildcard $(SELFTESTS_KVM)/$*.c $(SELFTESTS_KVM)/$*.S))

SELFTESTS_LIB_OBJECTS := $(patsubst %,$(SELFTESTS)/obj/lib/%.o,$(basename $(SELFTESTS_LIB)))
$(SELFTESTS)/bin/%: $(SELFTESTS)/obj/%.o $(SELFTESTS_LIB_OBJECTS)
	@mkdir -p $(@D)
	@gcc -static -s -no-pie -pthread -o $@ $^

.SECONDARY: $(SELFTESTS_NAMES:%=$(SELFTESTS)/obj/%.o) $(SELFTESTS_LIB_OBJECTS)
.PHONY: selftests-programs selftests
selftests-programs: $(SELFTESTS_NAMES:%=$(SELFTESTS)/bin/%)
selftests: deps-test
	@$(MAKE) -s --no-print-directory elf images selftests-programs
	@TESTS="$(TESTS)" tests/emulator/test_selftests.py
