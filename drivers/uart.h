/* SPDX-License-Identifier: BSD-2-Clause */
/* A 16550 serial port, output only and polled: Socle's console. Dom0 drives the same port, so Socle
 * never touches its settings and interrupts once dom0 runs. The log's lock serialises callers. */
#pragma once

#include "core/types.h"

#define UART_COM1 0x3f8
#define UART_COM2 0x2f8

/* Chooses the port (0: none) and sets it to 115200 8n1. An absent one stays off. Boot only. */
void uart_init(u16 port);

/* The log's sink: a newline goes out as CR LF. A character that waits too long for room is lost. */
void uart_write(const char *text, size_t len);
