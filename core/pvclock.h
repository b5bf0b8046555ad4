/* SPDX-License-Identifier: BSD-2-Clause */
/* The paravirtual clock, as KVM gives it: a page that tells the guest its time at some TSC value
 * and the TSC's rate. All of a domain's vCPUs count from the same moment with the same factors (of
 * one rate), so they agree to the nanosecond however long it is ago. The wall clock is dom0's. */
#pragma once

#include "core/vcpu.h"

#define MSR_KVM_WALL_CLOCK      0x11
#define MSR_KVM_SYSTEM_TIME     0x12
#define MSR_KVM_WALL_CLOCK_NEW  0x4b564d00
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01

/* The MSR's value; -E_INVAL: #GP. What it asks for is written before the next entry. */
int pvclock_set_time(struct vcpu *v, u64 value);

/* The vCPU's TSC or the domain's clock has changed. Any processor. */
void pvclock_changed(struct vcpu *v);

/* The work of PENDING_CLOCK, before an entry. */
enum vcpu_action pvclock_update(struct vcpu *v);
