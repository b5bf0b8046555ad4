# SPDX-License-Identifier: BSD-2-Clause
# build/tests/emulator/NAME: programs for dom0, static, of tests/emulator/NAME.c.
DOM0_PROGRAMS := $(patsubst tests/emulator/%.c,$(B)/tests/emulator/%,$(wildcard tests/emulator/*.c))

$(B)/tests/emulator/%: tests/emulator/%.c $(wildcard core/abi.h dom0-shim/kmod/uapi.h) tests/emulator/programs.mk
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -g $(WARNINGS) -static -pthread -I. -o $@ $<

.PHONY: dom0-programs
dom0-programs: $(DOM0_PROGRAMS)
