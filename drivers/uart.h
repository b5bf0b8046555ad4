/* SPDX-License-Identifier: BSD-2-Clause */
/* A 16550 serial port, output only and polled: Socle's console. Dom0 drives the same port, so Socle
 * leaves its settings alone where they are right, and never touches its interrupts once it runs.
 * The log's lock serialises callers. */
#pragma once

#include "core/types.h"

#define UART_COM1 0x3f8
#define UART_COM2 0x2f8

/* Chooses the port (0: none) and sets it to 115200 8n1 unless it is so already. An absent one stays
 * off. */
void uart_init(u16 port);

/* The log's sink: a newline goes out as CR LF. A character that waits too long for room is lost. */
void uart_write(const char *text, size_t len);
