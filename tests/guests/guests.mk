# SPDX-License-Identifier: BSD-2-Clause
# build/tests/guests/NAME.elf: tiny guests for `qemu-system-x86_64 -kernel`, of NAME.c (and NAME.asm), the code that
# they share, and nothing else.
GUESTS := $(filter-out lib,$(patsubst tests/guests/%.c,%,$(wildcard tests/guests/*.c)))
GUEST_OUT := $(B)/tests/guests
GUEST_CFLAGS := -std=gnu11 -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-pic -fno-pie -O2 -g \
    -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing $(WARNINGS) -I.

$(GUEST_OUT)/obj/%.o: tests/guests/%.c tests/guests/guests.mk
	@mkdir -p $(@D)
	@$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(GUEST_OUT)/obj/%.asm.o: tests/guests/%.asm tests/guests/guests.mk
	@mkdir -p $(@D)
	@$(NASM) $(NASMFLAGS) -MD $(@:.o=.d) -MT $@ -MP -o $@ $<

# $(1): the guest
define guest_program
$(GUEST_OUT)/$(1).elf: tests/guests/guest.ld $(patsubst tests/guests/%,$(GUEST_OUT)/obj/%.o, \
    tests/guests/start.asm tests/guests/lib tests/guests/$(1) $(wildcard tests/guests/$(1).asm))
	@echo "  GUEST $$@"
	@$(LD) -T $$< -nostdlib -static -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments -o $$@ $$(filter %.o,$$^)
endef
$(foreach g,$(GUESTS),$(eval $(call guest_program,$(g))))
-include $(wildcard $(GUEST_OUT)/obj/*.d)

.PHONY: guests-elf
guests-elf: $(GUESTS:%=$(GUEST_OUT)/%.elf)
