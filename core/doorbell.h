/* SPDX-License-Identifier: BSD-2-Clause */
/* Doorbells (KVM_IOEVENTFD): addresses of a domain where a write raises an event for dom0 and the
 * guest goes on. A hash table of pages charged to the domain, under a lock of its own. */
#pragma once

#include "core/types.h"

struct domain;

/* A write of `len` bytes to a port or guest-physical address; true if a doorbell took it. Exit
 * path. */
bool doorbell_ring(struct domain *d, u64 addr, u8 len, u64 data, bool pio);

/* `info` is SOCLE_DOORBELL(port, len, flags). -E_INVAL, -E_EXIST (the same match), -E_NOMEM,
 * -E_NOSPC. */
int doorbell_add(struct domain *d, u64 addr, u64 info, u64 data);
int doorbell_remove(struct domain *d, u64 addr, u64 info, u64 data);

/* With the domain. */
void doorbell_free_all(struct domain *d);
