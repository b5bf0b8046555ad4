/* SPDX-License-Identifier: BSD-2-Clause */
/* Facts about this image and this machine, and the machine's reset. */
#include "core/machine.h"
#include "core/io.h"
#include "core/lib.h"
#include "core/x86.h"

#define RESET_CONTROL   0xcf9
#define RESET_HARD      0x06
#define KEYBOARD_STATUS 0x64
#define KEYBOARD_RESET  0xfe
#define BUILD_ID_HEADER 16 /* an ELF note: three words and "GNU\0" come before the id */

extern const u8 __build_id_start[], __build_id_end[];

u64 machine_ram_bytes;

u64 image_bytes(void)
{
    return (u64)image_end - (u64)image_start;
}

void build_id_text(char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (const u8 *id = __build_id_start + BUILD_ID_HEADER; id < __build_id_end && used + 3 <= size;
         id++)
        used += (size_t)fmt_print(text + used, size - used, "%02x", *id);
}

void machine_reset(void)
{
    static const u8 no_idt[10]; /* base and limit 0 */

    outb(RESET_CONTROL, RESET_HARD & ~4);
    outb(RESET_CONTROL, RESET_HARD);
    for (u32 i = 0; i < 1000000; i++)
        cpu_relax();
    outb(KEYBOARD_STATUS, KEYBOARD_RESET);
    for (u32 i = 0; i < 1000000; i++)
        cpu_relax();
    __asm__ volatile("lidt %0\n\tint3" : : "m"(no_idt));
    cpu_halt_forever();
}
