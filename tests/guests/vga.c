/* SPDX-License-Identifier: BSD-2-Clause */
/* Draws on QEMU's standard VGA: a line of text, then, for each byte that comes on COM1, a rectangle
 * in the linear frame buffer. The byte says where: the eight rectangles of a row, and the rows
 * below it. */
#include "tests/guests/guest.h"

const char guest_name[] = "vga";

#define COM1      0x3f8
#define WIDTH     640
#define HEIGHT    480
#define SIDE      40    /* a rectangle's */
#define DISPI     0x1ce /* "bochs dispi": index, data */
#define BAR_MASK  0xfffffff0u
#define VGA_CLASS 0x0300

static u32 pci_read(u32 slot, u32 offset)
{
    outl(0xcf8, 0x80000000u | slot << 11 | offset);
    return inl(0xcfc);
}

static volatile u32 *frame_buffer(void)
{
    for (u32 slot = 0; slot < 32; slot++) {
        if (pci_read(slot, 8) >> 16 == VGA_CLASS)
            return (volatile u32 *)map_window(pci_read(slot, 0x10) & BAR_MASK);
    }
    fail("no VGA");
}

static void dispi(u16 index, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(index), "Nd"((u16)DISPI));
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"((u16)(DISPI + 1)));
}

static void text(const char *line)
{
    volatile u16 *screen = (volatile u16 *)0xb8000;

    __asm__("" : "+r"(screen));
    for (u32 i = 0; line[i]; i++)
        screen[i] = (u16)(0x1f00 | (u8)line[i]);
}

static u8 next_byte(void)
{
    while (!(inb(COM1 + 5) & 1))
        pause();
    return inb(COM1);
}

static void rectangle(volatile u32 *frame, u8 place)
{
    u32 x = (place & 7) * 80, y = (place >> 3 & 7) * 60, color = 0x010203u * place + 0x102030;

    for (u32 row = y; row < y + SIDE; row++) {
        for (u32 column = x; column < x + SIDE; column++)
            frame[row * WIDTH + column] = color;
    }
    print("DREW %u %u %u\n", x, y, color);
}

void guest_main(void)
{
    volatile u32 *frame;

    text("Socle's guest writes text");
    print("TEXT\n");
    next_byte();
    text("and other text, later   ");
    print("TEXT\n");
    next_byte();
    dispi(4, 0);
    dispi(1, WIDTH);
    dispi(2, HEIGHT);
    dispi(3, 32);
    dispi(4, 0x41); /* on, linear */
    frame = frame_buffer();
    print("GRAPHICS\n");
    for (;;)
        rectangle(frame, next_byte());
}
