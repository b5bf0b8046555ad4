/* SPDX-License-Identifier: BSD-2-Clause */
/* 16550 UART, polled output. Registers: National Semiconductor PC16550D data sheet, table II. */
#include "drivers/uart.h"

#include "core/io.h"

enum { UART_DATA = 0, UART_IER = 1, UART_FCR = 2, UART_LCR = 3, UART_MCR = 4, UART_LSR = 5 };

#define LCR_8N1  0x03
#define LCR_DLAB 0x80
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

/* A port read takes about a microsecond, a full FIFO 1.4 ms at 115200 baud. */
#define UART_POLLS 20000

static u16 uart_port;
static bool uart_stuck;

void uart_init(u16 port)
{
    uart_port = 0;
    uart_stuck = false;
    if (!port || inb(port + UART_LSR) == 0xff)
        return;
    for (u32 polls = UART_POLLS; polls && !(inb(port + UART_LSR) & LSR_TEMT); polls--)
        ; /* what the loader wrote goes out first */
    outb(port + UART_IER, 0);
    outb(port + UART_LCR, LCR_DLAB);
    outb(port + UART_DATA, 1);
    outb(port + UART_IER, 0);
    outb(port + UART_LCR, LCR_8N1);
    outb(port + UART_FCR, 0x07); /* FIFOs on and empty */
    outb(port + UART_MCR, 0x03); /* DTR, RTS */
    uart_port = port;
}

static void uart_putc(char c)
{
    /* Dom0 can set the port to a baud rate that never gets done: after one time-out, no more
     * waiting until the port is ready by itself. */
    u32 polls = uart_stuck ? 1 : UART_POLLS;

    while (polls && !(inb(uart_port + UART_LSR) & LSR_THRE))
        polls--;
    uart_stuck = !polls;
    if (polls)
        outb(uart_port + UART_DATA, (u8)c);
}

void uart_write(const char *text, size_t len)
{
    u8 lcr;

    if (!uart_port)
        return;
    lcr = inb(uart_port + UART_LCR);
    if (lcr & LCR_DLAB) /* dom0 is in the middle of setting the divisor */
        outb(uart_port + UART_LCR, lcr & ~LCR_DLAB);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n')
            uart_putc('\r');
        uart_putc(text[i]);
    }
    if (lcr & LCR_DLAB)
        outb(uart_port + UART_LCR, lcr);
}
