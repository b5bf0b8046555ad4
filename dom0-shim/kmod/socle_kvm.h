/* SPDX-License-Identifier: GPL-2.0 */
/* socle.ko's own types and the functions that its files offer each other.
 *
 * Locks, outermost first: vm->lock (vCPU and irqchip creation, clock) > vcpu->mutex > vm->slots_lock >
 * vm->mmu_lock. Interrupt paths (MSI, irqfd, PIC, IOAPIC, PIT, events) take only spinlocks with interrupts
 * off: pit->lock > pic->lock, ioapic->lock. Routing and event ports are read under RCU.
 */
#ifndef SOCLE_KVM_H
#define SOCLE_KVM_H

#define pr_fmt(fmt) "socle: " fmt

#include <linux/kvm.h>
#include <linux/eventfd.h>
#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "hypercall.h"

#define SK_MAX_VCPUS	64
#define SK_MAX_VCPU_ID	256
#define SK_MEM_SLOTS	509
#define SK_MAX_GSI	4096
#define SK_X2APIC_FLAGS (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
#define SK_MAX_CPUID	100
#define SK_MAX_MSRS	256
#define SK_MCE_BANKS	32
#define SK_MMAP_PAGES	3
#define SK_XSAVE_BYTES	4096
#define SK_GUESTDBG                                                                                \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |                  \
	 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP |                \
	 KVM_GUESTDBG_BLOCKIRQ)

/* Who holds an interrupt line up; a line is the OR of them. */
enum { SK_SOURCE_USER, SK_SOURCE_PIT, SK_SOURCE_IRQFD, SK_SOURCE_RESAMPLE };

/* ---- events.c: event ports -------------------------------------------------------------------- */
struct sk_port {
	u32 nr; /* 0: none */
	/* In hard interrupt context, under rcu_read_lock(). */
	void (*notify)(struct sk_port *port);
};

int sk_events_init(void);
void sk_events_exit(void);
int sk_port_add(struct sk_port *port);
/* The port is not called again after the next RCU grace period. Delivers what is pending first. */
void sk_port_remove(struct sk_port *port);

/* ---- memory.c: slots and mapping -------------------------------------------------------------- */
struct sk_slot {
	u64 gfn;
	u64 pages;
	unsigned long hva;
	u32 flags;
	u16 id;
	bool dying; /* no new mappings; the notifier still honours it */
	unsigned long *dirty;
	unsigned long *young; /* first pages of what was mapped since Linux last asked; under mmu_lock */
};

struct sk_vm;
struct sk_vcpu;

int sk_memory_init(struct sk_vm *vm);
void sk_memory_destroy(struct sk_vm *vm);
int sk_memory_set_region(struct sk_vm *vm, const struct kvm_userspace_memory_region *region);
int sk_memory_dirty_log(struct sk_vm *vm, const struct kvm_dirty_log __user *user);
int sk_memory_clear_log(struct sk_vm *vm, const struct kvm_clear_dirty_log __user *user);
int sk_memory_manual_protect(struct sk_vm *vm, const struct kvm_enable_cap *cap);
/* Maps what the guest touched; 0, -EAGAIN (try again), or an error for KVM_RUN's caller. */
extern bool sk_small_exec; /* Socle maps code by 4 KiB pages only (CVE-2018-12207) */
int sk_memory_fault(struct sk_vcpu *vcpu, u64 gpa, bool write, bool code);
/* Marks what Socle has logged as dirty: in the slots' bitmaps, or in the vCPU's ring. */
void sk_memory_take_log(struct sk_vm *vm);
/* Copies from or to the guest's RAM, in an ioctl of its process. -EFAULT: some of it is none */
int sk_memory_access(struct sk_vcpu *vcpu, u64 gpa, void *data, u32 bytes, bool write);
/* 4 or 8 aligned bytes, atomically. -EAGAIN: they were not as expected */
int sk_memory_exchange(struct sk_vcpu *vcpu, u64 gpa, u64 old, u64 new, u32 bytes);
void sk_memory_take_vcpu_log(struct sk_vcpu *vcpu);
void sk_memory_protect(struct sk_vm *vm, u32 id, u64 offset, u64 pages);

/* ---- dirty_ring.c: KVM_CAP_DIRTY_LOG_RING ------------------------------------------------------- */
#define SK_DIRTY_RING_MAX (65536 * sizeof(struct kvm_dirty_gfn))

struct sk_dirty_ring {
	struct kvm_dirty_gfn *gfns; /* mapped by userspace too */
	u32 dirty; /* how many were put in and taken out, ever */
	u32 reset;
};

extern bool sk_pml; /* Socle's processor logs writes */
int sk_dirty_ring_enable(struct sk_vm *vm, u32 bytes);
int sk_dirty_ring_new(struct sk_vcpu *vcpu);
bool sk_dirty_ring_has(const struct sk_vm *vm, unsigned long pgoff);
struct page *sk_dirty_ring_page(struct sk_vcpu *vcpu, unsigned long pgoff);
/* By the vCPU's own thread, under mmu_lock */
void sk_dirty_ring_push(struct sk_vcpu *vcpu, u32 slot, u64 offset);
/* The vCPU must not run before userspace has taken some out. */
bool sk_dirty_ring_full(const struct sk_vcpu *vcpu);
int sk_dirty_ring_reset(struct sk_vm *vm);

/* ---- irq.c: GSI routing ----------------------------------------------------------------------- */
struct sk_routes;

int sk_irq_init(struct sk_vm *vm);
void sk_irq_destroy(struct sk_vm *vm);
int sk_irq_set_routing(struct sk_vm *vm, const struct kvm_irq_routing __user *user);
/* As KVM: < 0 ignored (masked), 0 coalesced, > 0 delivered. Any context. */
int sk_irq_set(struct sk_vm *vm, u32 gsi, int source, int level);
/* Delivers one pulse of an irqfd. Any context. */
void sk_irq_pulse(struct sk_vm *vm, u32 gsi);
int sk_irq_signal_msi(struct sk_vm *vm, const struct kvm_msi *msi);
/* The vector of a level-triggered message that a pin of userspace's IOAPICs is routed to */
bool sk_irq_needs_eoi(struct sk_vm *vm, u8 vector);
/* The GSI that drives that pin, or -1 */
int sk_irq_gsi_of(struct sk_vm *vm, u32 chip, u32 pin);
long sk_irq_enable_split(struct sk_vm *vm, u64 pins);
long sk_irq_enable_x2apic(struct sk_vm *vm, u64 flags);
/* The number of vCPUs that took it, < 0: it is no message. Any context. */
long sk_irq_send_msi(struct sk_vm *vm, u32 low, u32 high, u32 data);

/* ---- irqfd.c ---------------------------------------------------------------------------------- */
int sk_irqfd_init(void);
void sk_irqfd_exit(void);
int sk_irqfd(struct sk_vm *vm, const struct kvm_irqfd *args);
void sk_irqfd_release_all(struct sk_vm *vm);
/* The guest has ended that pin's interrupt: for irqfds with resampling. Any context, without the chips' locks. */
void sk_irqfd_ended(struct sk_vm *vm, u32 chip, u32 pin);

/* ---- ioeventfd.c ------------------------------------------------------------------------------ */
int sk_ioeventfd(struct sk_vm *vm, const struct kvm_ioeventfd *args);
void sk_ioeventfd_release_all(struct sk_vm *vm);
/* For a write that Socle did not match itself; true: done. */
bool sk_ioeventfd_write(struct sk_vm *vm, bool pio, u64 addr, u32 len, const void *data);

/* ---- coalesced.c ------------------------------------------------------------------------------ */
int sk_coalesced_init(struct sk_vm *vm);
void sk_coalesced_destroy(struct sk_vm *vm);
int sk_coalesced_register(struct sk_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
int sk_coalesced_unregister(struct sk_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
bool sk_coalesced_write(struct sk_vm *vm, bool pio, u64 addr, u32 len, const void *data);

/* ---- pic.c, ioapic.c, pit.c: the in-kernel interrupt controllers and timer ------------------------ */
struct sk_pic {
	spinlock_t lock;
	struct kvm_pic_state chip[2];
	unsigned long lines[16]; /* sources that hold each line up */
	bool output;
	unsigned long ended; /* lines whose interrupts have ended since the lock was taken */
};

struct sk_ioapic {
	spinlock_t lock;
	struct kvm_ioapic_state state;
	unsigned long lines[KVM_IOAPIC_NUM_PINS];
};

struct sk_pit {
	struct sk_vm *vm;
	spinlock_t lock;
	struct kvm_pit_state2 state;
	struct hrtimer timer;
	bool armed;
	s64 period; /* ns; 0: one shot */
	u32 pending; /* ticks that found the last one not yet taken */
	bool discard; /* ... are not given later */
	bool speaker; /* port 0x61 is ours */
};

void sk_pic_init(struct sk_vm *vm);
int sk_pic_set_irq(struct sk_vm *vm, int pin, int source, int level);
/* The vector that the PIC gives now, or -1 when its output is low. */
int sk_pic_acknowledge(struct sk_vm *vm);
/* Tells Socle the state of the PIC's output; for a new boot vCPU. */
void sk_pic_refresh(struct sk_vm *vm);
bool sk_pic_io(struct sk_vm *vm, u16 port, bool in, u8 *data);
void sk_pic_get(struct sk_vm *vm, int chip, struct kvm_pic_state *state);
void sk_pic_set(struct sk_vm *vm, int chip, const struct kvm_pic_state *state);

void sk_ioapic_init(struct sk_vm *vm);
int sk_ioapic_set_irq(struct sk_vm *vm, int pin, int source, int level);
void sk_ioapic_eoi(struct sk_vm *vm, u8 vector);
bool sk_ioapic_mmio(struct sk_vm *vm, u64 gpa, bool write, u32 len, void *data);
void sk_ioapic_get(struct sk_vm *vm, struct kvm_ioapic_state *state);
void sk_ioapic_set(struct sk_vm *vm, const struct kvm_ioapic_state *state);

int sk_pit_create(struct sk_vm *vm, u32 flags);
void sk_pit_destroy(struct sk_vm *vm);
bool sk_pit_io(struct sk_vm *vm, u16 port, bool in, u8 *data);
void sk_pit_get(struct sk_pit *pit, struct kvm_pit_state2 *state);
int sk_pit_set(struct sk_pit *pit, const struct kvm_pit_state2 *state);
void sk_pit_set_reinject(struct sk_pit *pit, bool on);
/* The guest took IRQ 0 from the PIC. */
void sk_pit_taken(struct sk_vm *vm);

/* ---- vm.c ------------------------------------------------------------------------------------- */
struct sk_vm {
	refcount_t users;
	struct mm_struct *mm;
	pid_t creator;
	u32 domain;

	struct mutex lock;
	u32 max_vcpu_ids; /* 0: not limited by KVM_CAP_MAX_VCPU_ID */
	u32 boot_cpu_id;
	unsigned long mmu_pages;
	u32 vcpu_count;
	struct sk_vcpu *vcpus[SK_MAX_VCPUS];
	u64 first_tsc; /* the processor's, when the first vCPU's began with 0 */
	u32 tsc_khz;   /* of new vCPUs */
	struct sk_vcpu *boot_vcpu; /* takes the PIC's output; set once */
	s64 clock_offset; /* guest's paravirtual clock minus Socle's */
	u64 wall_clock; /* the MSR */
	/* KVM_ENABLE_CAP's */
	struct sk_msr_filter __rcu *msr_filter;
	u64 msr_exits; /* KVM_MSR_EXIT_REASON_* */
	u64 disabled_quirks;
	atomic_t policy; /* counts changes of what policy.c tells Socle */
	bool hide_platform_info;
	bool exception_payload;
	bool triple_fault_event;
	bool exit_on_emulation_failure;

	struct mutex slots_lock;
	spinlock_t mmu_lock; /* slots for readers, mappings, notifier state */
	struct sk_slot *slot_by_id[SK_MEM_SLOTS];
	struct sk_slot *slots[SK_MEM_SLOTS]; /* sorted by gfn */
	u32 slot_count;
	u64 slots_version;
	struct mmu_notifier notifier;
	unsigned long notifier_seq;
	unsigned long notifier_count;
	unsigned long notifier_start, notifier_end;
	bool mm_gone;
	u64 *log; /* SOCLE_DIRTY_MAX page numbers; under mmu_lock */
	u64 manual_protect; /* KVM_DIRTY_LOG_*; under slots_lock */
	u32 dirty_ring_bytes; /* of each vCPU; 0: bitmaps. Set once, before the first vCPU */

	bool irqchip; /* local APICs are in Socle; set once, under lock */
	bool split;   /* without the PIC and the IOAPIC; before irqchip */
	u32 reserved_pins; /* split: GSIs of userspace's IOAPICs */
	bool x2apic_ids;   /* KVM_CAP_X2APIC_API: ids of 32 bits */
	bool x2apic_exact; /* KVM_CAP_X2APIC_API: 0xff is no broadcast for x2APICs */
	struct sk_pic pic;
	struct sk_ioapic ioapic;
	struct sk_pit *pit;
	struct sk_routes __rcu *routes;
	struct mutex routes_lock;
	spinlock_t irqfd_lock;
	struct list_head irqfds;
	struct list_head resamplers; /* under irqfd_lock, read under RCU */

	struct mutex ioeventfd_lock;
	struct list_head ioeventfds;
	atomic_t soft_ioeventfds;

	spinlock_t ring_lock;
	struct list_head zones;
	struct page *ring_page;
	u32 ring_last;
};

/* The PIC and the IOAPIC are here. */
static inline bool sk_has_pic(const struct sk_vm *vm)
{
	return smp_load_acquire(&vm->irqchip) && !vm->split;
}

long sk_vm_create(void);
void sk_vm_get(struct sk_vm *vm);
void sk_vm_put(struct sk_vm *vm);
int sk_check_extension(struct sk_vm *vm, long cap);
/* MSR_KVM_WALL_CLOCK, old or new */
void sk_vm_set_wall_clock(struct sk_vcpu *vcpu, u64 gpa);

/* ---- vcpu.c, exit.c --------------------------------------------------------------------------- */
struct sk_mtrr {
	u64 def_type;
	u64 fixed[11];
	u64 variable[16];
};

struct sk_mce {
	u64 cap, status, ctl;
	u64 bank[SK_MCE_BANKS * 4];
};

/* What the next RUN must carry into Socle, from userspace's answer */
enum sk_answer {
	SK_ANSWER_NONE,
	SK_ANSWER_PIO_IN,
	SK_ANSWER_MMIO_READ,
	SK_ANSWER_MSR_READ,
	SK_ANSWER_MSR_WRITE
};

struct sk_vcpu {
	struct sk_vm *vm;
	u32 id; /* APIC id */
	u32 handle;
	struct sk_port port;
	wait_queue_head_t wait;
	int event; /* the port fired */
	int cpu;   /* the processor that is in RUN, or -1 */

	struct mutex mutex; /* all below */
	struct kvm_run *run; /* mapped by userspace: read each field once */
	void *pio;	     /* likewise */
	struct socle_vcpu_page *page; /* Socle's */
	void *buffer;		      /* one page for VCPU_GET and VCPU_SET */
	enum sk_answer answer;
	u32 answer_bytes;
	bool completion; /* Socle holds an instruction to finish at the next RUN */
	bool finish_now; /* finish that instruction before userspace sees the exit */
	bool exited;	 /* the last RUN ended with an exit: the vCPU is stopped */
	bool unhandled;	 /* userspace sees the end of an interrupt before that exit */
	bool has_run;
	struct sk_dirty_ring dirty_ring;
	bool triple_fault; /* the next RUN ends with it */
	int policy; /* vm->policy as applied; -1: not at all */
	bool entering;
	u32 traps;  /* that Socle has */
	bool enforce_pv;
	u64 cr8; /* as userspace last saw it */
	u32 tsc_khz;
	bool sigset_active;
	sigset_t sigset;
	u32 cpuid_count;
	struct kvm_cpuid_entry2 *cpuid;

	struct sk_mtrr mtrr;
	struct sk_mce mce;
	struct {
		u64 msr;
		u64 run_delay, waited; /* as they were at the last update */
		struct task_struct *thread; /* whose run_delay; only compared */
	} steal;
	u64 poll_control;
	u64 misc_enable, ucode_rev, hwcr, de_cfg, platform_info, power_ctl;
};

long sk_vcpu_create(struct sk_vm *vm, u32 id);
void sk_vcpu_free(struct sk_vcpu *vcpu);
/* Handles the exit in vcpu->page: 1 resume the guest, 0 return to userspace, < 0 error. */
int sk_exit_handle(struct sk_vcpu *vcpu);

/* ---- task.c ----------------------------------------------------------------------------------- */
/* The switch that the exit in vcpu->page asks for: 0 resume the guest, 1 it has shut down, < 0 error */
int sk_task_switch(struct sk_vcpu *vcpu);

/* ---- state.c ---------------------------------------------------------------------------------- */
/* One section of the vCPU's state, to or from vcpu->buffer */
int sk_state_get(struct sk_vcpu *vcpu, u32 section, u32 bytes);
int sk_state_set(struct sk_vcpu *vcpu, u32 section, u32 bytes);
int sk_state_init(struct sk_vcpu *vcpu, bool boot_cpu);
/* What KVM_SET_TSC_KHZ asks for, 0 meaning the machine's rate; 0: not possible */
u32 sk_state_tsc_khz(unsigned long arg);
long sk_state_set_tsc_khz(struct sk_vcpu *vcpu, unsigned long arg);
int sk_state_set_cr8(struct sk_vcpu *vcpu, u64 cr8);
int sk_state_queue_interrupt(struct sk_vcpu *vcpu, u32 vector);
int sk_state_queue_exception(struct sk_vcpu *vcpu, u8 vector);
/* -ENOTTY: not an ioctl of this file */
long sk_state_ioctl(struct sk_vcpu *vcpu, unsigned int cmd, void __user *argp);
u64 sk_state_supported_xcr0(void);
/* The sets of registers that kvm_run carries, KVM_SYNC_X86_* */
int sk_state_sync_in(struct sk_vcpu *vcpu, u64 sets);
void sk_state_sync_out(struct sk_vcpu *vcpu, u64 sets);

/* ---- guest.c ---------------------------------------------------------------------------------- */
#define SK_GUEST_ACCESS_MAX 16
int sk_guest_translate(struct sk_vcpu *vcpu, u64 gva, bool write, u64 *gpa);
int sk_guest_access(struct sk_vcpu *vcpu, u64 gva, u8 *data, u32 bytes, bool write);
long sk_guest_ioctl_translate(struct sk_vcpu *vcpu, struct kvm_translation __user *user);

/* ---- policy.c --------------------------------------------------------------------------------- */
#define SK_QUIRKS                                                                                  \
	(KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT |                       \
	 KVM_X86_QUIRK_FIX_HYPERCALL_INSN | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

static inline bool sk_policy_quirk_off(const struct sk_vm *vm, u64 quirk)
{
	return READ_ONCE(vm->disabled_quirks) & quirk;
}

int sk_policy_apply(struct sk_vcpu *vcpu);
void sk_policy_destroy(struct sk_vm *vm);
bool sk_policy_msr_allowed(struct sk_vm *vm, u32 index, bool write);
bool sk_policy_pv_offers(const struct sk_vcpu *vcpu, u32 msr);
bool sk_policy_pv_absent(const struct sk_vcpu *vcpu, u32 msr);
void sk_policy_misc_enable(struct sk_vcpu *vcpu, u64 value);
/* SOCLE_EXIT_UD: 0, or an error for KVM_RUN's caller */
int sk_policy_ud(struct sk_vcpu *vcpu);
long sk_policy_set_filter(struct sk_vm *vm, const struct kvm_msr_filter __user *user);
long sk_policy_set_msr_exits(struct sk_vm *vm, u64 reasons);
long sk_policy_disable_quirks(struct sk_vm *vm, u64 quirks);
long sk_policy_exit_on_emulation_failure(struct sk_vm *vm, u64 on);

/* ---- msr.c ------------------------------------------------------------------------------------ */
void sk_msr_init(struct sk_vcpu *vcpu);
#define SK_MSR_NOT_OURS 1 /* Socle's, or nobody's */
/* A guest's own access: 0, SK_MSR_NOT_OURS, or an error that becomes #GP */
int sk_msr_guest_read(struct sk_vcpu *vcpu, u32 index, u64 *value);
int sk_msr_guest_write(struct sk_vcpu *vcpu, u32 index, u64 value);
long sk_msr_get(struct sk_vcpu *vcpu, struct kvm_msrs __user *user);
long sk_msr_set(struct sk_vcpu *vcpu, struct kvm_msrs __user *user);
long sk_msr_index_list(struct kvm_msr_list __user *user);
long sk_msr_feature_list(struct kvm_msr_list __user *user);
long sk_msr_get_features(struct kvm_msrs __user *user);
long sk_mce_setup(struct sk_vcpu *vcpu, u64 cap);
long sk_mce_inject(struct sk_vcpu *vcpu, struct kvm_x86_mce *mce);
u64 sk_mce_supported(void);

/* ---- cpuid.c ---------------------------------------------------------------------------------- */
int sk_cpuid_init(struct sk_vcpu *vcpu);
/* Tells Socle vcpu->cpuid, which has changed. */
int sk_cpuid_refresh(struct sk_vcpu *vcpu);
long sk_cpuid_supported(struct kvm_cpuid2 __user *user);
long sk_cpuid_set(struct sk_vcpu *vcpu, struct kvm_cpuid2 __user *user);
long sk_cpuid_set_old(struct sk_vcpu *vcpu, struct kvm_cpuid __user *user);
long sk_cpuid_get(struct sk_vcpu *vcpu, struct kvm_cpuid2 __user *user);

/* ---- stats.c: KVM_GET_STATS_FD ------------------------------------------------------------------- */
long sk_stats_vm_fd(struct sk_vm *vm);
long sk_stats_vcpu_fd(struct sk_vcpu *vcpu);

/* ---- pv.c: the paravirtual features that Socle has no part in -------------------------------------- */
int sk_pv_get(struct sk_vcpu *vcpu, u32 index, u64 *value, bool host);
int sk_pv_set(struct sk_vcpu *vcpu, u32 index, u64 value, bool host);
void sk_pv_steal_update(struct sk_vcpu *vcpu, bool kept);
void sk_pv_reschedule(struct sk_vcpu *vcpu);

/* Before each entry. kept: the thread has waited, but the vCPU was Socle's meanwhile. */
static inline void sk_pv_steal(struct sk_vcpu *vcpu, bool kept)
{
	if (vcpu->steal.msr && (current->sched_info.run_delay != vcpu->steal.run_delay ||
				READ_ONCE(vcpu->page->waited) != vcpu->steal.waited))
		sk_pv_steal_update(vcpu, kept);
}

static inline void sk_pv_give_way(struct sk_vcpu *vcpu)
{
	if (vcpu->steal.msr && unlikely(need_resched()))
		sk_pv_reschedule(vcpu);
	else
		cond_resched();
}

/* ---- control.c: /dev/socle -------------------------------------------------------------------- */
int sk_control_init(void);
void sk_control_exit(void);

/* ---- main.c ----------------------------------------------------------------------------------- */
extern u32 sk_tsc_khz; /* these three from Socle */
extern bool sk_tsc_scaling;
/* Socle's clock at that value of the TSC, in ns */
u64 sk_socle_clock(u64 tsc);

#endif
