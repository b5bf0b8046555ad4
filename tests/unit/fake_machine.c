/* SPDX-License-Identifier: BSD-2-Clause */
/* The machine's fakes: what core asks of drivers, paging, the vendor part and its other modules. */
#include "tests/unit/fake_machine.h"

#include "core/cpuid.h"
#include "core/exits.h"
#include "core/event.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/msr.h"
#include "core/paging.h"
#include "core/panic.h"
#include "core/pvclock.h"
#include "core/state.h"
#include "drivers/apic.h"
#include "drivers/tsc.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct fake fake;
u8 *fake_ram;
__thread u32 fake_cpu;

u64 tsc_khz = 1000000, tsc_boot;
bool tsc_scaling;
u64 machine_ram_bytes = MAX_PFN << PAGE_SHIFT;
u64 host_xcr0_mask = 7, host_phys_mask = BIT(40) - 1;
u32 host_va_spare = 16;
bool host_has_tsc_aux;
struct pcpu *pcpus[MAX_PCPUS];
u32 pcpu_count;
const struct vendor_ops *vendor = &fake_vendor;

static struct pcpu cpu_store[CPUS];
static struct vcpu *running[CPUS]; /* in the guest */
static u8 *pool_base, *frame_table;
static paddr_t shared_slot[PAGING_SHARED_SLOTS];

struct pcpu *this_cpu(void)
{
    return &cpu_store[fake_cpu];
}

/* ---- the heap, which tells when a freed page is used ---- */

void *__real_pool_alloc(struct charge *charge);
void *__wrap_pool_alloc(struct charge *charge);
void __real_pool_free(void *page, struct charge *charge);
void __wrap_pool_free(void *page, struct charge *charge);

static void *freed[POOL_PAGES]; /* as the heap's own list: the last one is the next one */
static u32 freed_count;
static struct spinlock freed_lock;

void *__wrap_pool_alloc(struct charge *charge)
{
    void *page, *top;

    spin_lock(&freed_lock);
    top = freed_count ? freed[freed_count - 1] : NULL;
    if (top)
        ASAN_UNPOISON_MEMORY_REGION(top, PAGE_SIZE);
    page = __real_pool_alloc(charge);
    if (page && page == top)
        freed_count--;
    else if (top)
        ASAN_POISON_MEMORY_REGION((u8 *)top + 8, PAGE_SIZE - 8);
    spin_unlock(&freed_lock);
    return page;
}

void __wrap_pool_free(void *page, struct charge *charge)
{
    if (!page)
        return;
    spin_lock(&freed_lock);
    memset(page, 0xa5, PAGE_SIZE);
    __real_pool_free(page, charge);
    freed[freed_count++] = page;
    ASAN_POISON_MEMORY_REGION((u8 *)page + 8, PAGE_SIZE - 8);
    spin_unlock(&freed_lock);
}

/* ---- Socle's address space and the other processors ---- */

void *window_map(unsigned int slot, paddr_t pa)
{
    ASSERT(slot < WINDOWS && frame_owner(pa >> PAGE_SHIFT) == FRAME_DOM0);
    return RAM(pa);
}

void window_unmap(unsigned int slot)
{
    (void)slot;
}

void phys_read(void *dst, paddr_t src, size_t len)
{
    memcpy(dst, window_map(WINDOW_COPY, src), len);
    window_unmap(WINDOW_COPY);
}

void phys_write(paddr_t dst, const void *src, size_t len)
{
    memcpy(window_map(WINDOW_COPY, dst), src, len);
    window_unmap(WINDOW_COPY);
}

void *paging_map_shared(u32 index, paddr_t pa)
{
    ASSERT(index < PAGING_SHARED_SLOTS && !shared_slot[index] && pa);
    ASSERT(frame_owner(pa >> PAGE_SHIFT) == FRAME_DOM0);
    shared_slot[index] = pa;
    __atomic_fetch_add(&fake.shared, 1, __ATOMIC_RELAXED);
    return RAM(pa);
}

void paging_unmap_shared(u32 index)
{
    ASSERT(shared_slot[index]);
    shared_slot[index] = 0;
    __atomic_fetch_sub(&fake.shared, 1, __ATOMIC_RELAXED);
}

void pcpu_flush_host_pending(void)
{
}

/* Without threads, a processor that is kicked leaves its guest and comes back at once. */
void pcpu_kick(int to)
{
    u32 id = (u32)to;

    if (to < 0)
        return;
    ASSERT(id < pcpu_count);
    if (id == fake_cpu && this_cpu()->current)
        vcpu_set_pending(this_cpu()->current, PENDING_RESCHED);
    if (id == fake_cpu)
        return;
    __atomic_store_n(&fake.kicked[id], true, __ATOMIC_SEQ_CST);
    if (!fake.threads)
        pcpus[id]->entries++;
}

/* ---- drivers ---- */

void apic_eoi(void)
{
    fake.eois[fake_cpu]++;
}

bool apic_in_service(u8 vector)
{
    return !fake.from_pic[vector];
}

bool apic_is_level(u8 vector)
{
    return fake.level[vector];
}

void apic_set_logical(u32 ldr, u32 dfr)
{
    (void)ldr;
    (void)dfr;
}

void apic_timer_set(u64 deadline)
{
    fake.timer[fake_cpu] = deadline;
}

u64 tsc_to_ns(u64 ticks)
{
    return ticks;
}

u64 tsc_uptime_ns(void)
{
    return rdtsc();
}

void pvclock_changed(struct vcpu *v)
{
    fake.clock_changes++;
    vcpu_set_pending(v, PENDING_CLOCK);
}

enum vcpu_action pvclock_update(struct vcpu *v)
{
    (void)v;
    return VCPU_RESUME;
}

u64 image_bytes(void)
{
    return 0x100000;
}

void build_id_text(char *text, size_t size)
{
    memset(text, 0, size);
}

size_t log_read(u64 *pos, void *buf, size_t len)
{
    (void)buf;
    (void)len;
    *pos = 7;
    return 0;
}

NORETURN void machine_reset(void)
{
    panic("the machine is reset");
}

/* ---- the rest of core ---- */

enum vcpu_action emulate_complete(struct vcpu *v)
{
    __atomic_fetch_add(&fake.completions, 1, __ATOMIC_RELAXED);
    if (fake.completion == VCPU_RESUME)
        v->io.kind = IO_NONE;
    return fake.completion;
}

enum vcpu_action msr_complete(struct vcpu *v)
{
    v->io.kind = IO_NONE;
    return VCPU_RESUME;
}

/* Sections up to TRAPS are known; REGS only is real. */
static int state_check(struct vcpu *v, u64 section, u32 len)
{
    __atomic_fetch_add(&fake.state_calls, 1, __ATOMIC_RELAXED);
    ASSERT(sched_state(&v->se) == SCHED_STOPPED && !sched_loaded(&v->se));
    if (!section || section > SOCLE_STATE_TRAPS)
        return -E_INVAL;
    return section == SOCLE_STATE_REGS && len != sizeof(struct socle_regs) ? -E_INVAL : 0;
}

int state_access(struct vcpu *v, u64 section, void *buf, u32 len, bool set)
{
    int err = state_check(v, section, len);
    struct socle_regs *r = buf;

    if (!err && section == SOCLE_STATE_REGS)
        memcpy(set ? v->gpr : r->gpr, set ? r->gpr : v->gpr, sizeof(v->gpr));
    return err;
}

/* ---- the vendor part ---- */

static const struct npt_format format = NPT_FORMAT_SVM;

static int fake_vcpu_init(struct vcpu *v)
{
    v->vendor = pool_alloc(&v->domain->charge);
    return v->vendor ? 0 : -E_NOMEM;
}

static void fake_vcpu_free(struct vcpu *v)
{
    if (v->vendor)
        pool_free(v->vendor, &v->domain->charge);
}

static void fake_get_sregs(struct vcpu *v, struct socle_sregs *s)
{
    memcpy(s, v->vendor, sizeof(*s));
}

static void fake_set_sregs(struct vcpu *v, const struct socle_sregs *s)
{
    memcpy(v->vendor, s, sizeof(*s));
}

static bool fake_set_msr(struct vcpu *v, u32 index, u64 value)
{
    (void)v;
    (void)value;
    return index == MSR_EFER || index == MSR_PAT;
}

static void fake_get_debug(struct vcpu *v, struct socle_debug *d)
{
    *d = (struct socle_debug){.dr6 = 0xffff0ff0, .dr7 = 0x400};
    memcpy(d->db, v->dr, sizeof(d->db));
}

static void fake_set_debug(struct vcpu *v, const struct socle_debug *d)
{
    memcpy(v->dr, d->db, sizeof(v->dr));
}

static bool fake_get_shadow(struct vcpu *v)
{
    (void)v;
    return fake.shadow;
}

static void fake_set_shadow(struct vcpu *v, bool shadow)
{
    (void)v;
    (void)shadow;
}

static void fake_features(char *text, size_t size)
{
    memset(text, 0, size);
}

bool cpuid_offers_call(const struct vcpu *v, u64 nr)
{
    (void)v;
    return nr < 32 && (fake.kvm_calls >> nr & 1);
}

const struct vendor_ops fake_vendor = {
    .name = "fake",
    .npt_format = &format,
    .features = fake_features,
    .vcpu_init = fake_vcpu_init,
    .vcpu_free = fake_vcpu_free,
    .get_sregs = fake_get_sregs,
    .set_sregs = fake_set_sregs,
    .set_msr = fake_set_msr,
    .get_debug = fake_get_debug,
    .set_debug = fake_set_debug,
    .get_shadow = fake_get_shadow,
    .set_shadow = fake_set_shadow,
};

/* ---- the machine ---- */

static void start_memory(void)
{
    u64 table = ALIGN_UP(frame_table_bytes(MAX_PFN), PAGE_SIZE);

    if (!fake_ram) {
        fake_ram = mmap(NULL, MAX_PFN << PAGE_SHIFT, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pool_base = aligned_alloc(PAGE_SIZE, POOL_PAGES * PAGE_SIZE);
        frame_table = aligned_alloc(PAGE_SIZE, table);
    }
    ASAN_UNPOISON_MEMORY_REGION(pool_base, POOL_PAGES * PAGE_SIZE);
    freed_count = 0;
    memset(frame_table, 0, table);
    frame_init(frame_table, MAX_PFN);
    frame_set_owner_range(0, SOCLE_FRAMES, FRAME_SOCLE);
    frame_set_owner_range(SOCLE_FRAMES, HOLE_PFN - SOCLE_FRAMES, FRAME_DOM0);
    pool_init(pool_base, POOL_PAGES * PAGE_SIZE, 0);
}

static void start_cpu(u32 i)
{
    struct pcpu *cpu = &cpu_store[i];

    memset(cpu, 0, sizeof(*cpu));
    cpu->id = i;
    cpu->buffer = pool_alloc(NULL);
    pcpus[i] = cpu;
    sched_add_cpu(&cpu->rq, i);
    running[i] = NULL;
}

static void start_dom0_vcpu(u32 i)
{
    int handle = vcpu_create(&dom0, i, 0, 0);
    u64 affinity[SCHED_CPU_WORDS] = {BIT(i)};
    struct vcpu *v;

    ASSERT(handle == (int)i);
    v = pcpus[i]->dom0 = vcpu_table[handle];
    v->activity = ACTIVITY_RUN;
    v->rflags |= RFLAGS_IF;
    v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    sched_set_affinity(&v->se, affinity, rdtsc());
    ASSERT(sched_start(&v->se, i, rdtsc()) != -E_BUSY);
}

/* Nothing of an earlier machine is left in core's tables, or it could not have ended. */
void fake_start(u32 cpus)
{
    ASSERT(cpus <= CPUS && event_register(0, 0) == 0);
    memset(&fake, 0, sizeof(fake));
    memset(vcpu_table, 0, sizeof(vcpu_table));
    memset(&dom0, 0, sizeof(dom0));
    memset(shared_slot, 0, sizeof(shared_slot));
    fake_cpu = 0;
    tsc_boot = rdtsc();
    start_memory();
    sched_init(tsc_khz);
    pcpu_count = cpus;
    for (u32 i = 0; i < cpus; i++)
        start_cpu(i);
    ASSERT(domain_init_dom0() == 0);
    for (u32 i = 0; i < cpus; i++)
        start_dom0_vcpu(i);
    for (u32 i = 0; i < cpus; i++)
        ASSERT(fake_enter(i) == pcpus[i]->dom0);
}

struct fake_totals fake_totals(void)
{
    struct fake_totals t = {.pool = pool_free_pages(),
                            .lent = frame_lent_pages(),
                            .dom0_charge = dom0.charge.pages,
                            .shared = fake.shared};
    const struct frame *frames = (const struct frame *)frame_table;

    for (u32 i = 0; i < SOCLE_MAX_VCPUS; i++)
        t.vcpus += vcpu_table[i] != NULL;
    for (u32 i = 0; i < SOCLE_MAX_DOMAINS; i++) {
        struct domain *d = domain_get(i);

        t.domains += d != NULL;
        if (d)
            domain_put(d);
    }
    for (u64 i = 0; i < MAX_PFN; i++)
        ASSERT(frames[i].owner == (i < SOCLE_FRAMES ? FRAME_SOCLE
                                   : i < HOLE_PFN   ? FRAME_DOM0
                                                    : FRAME_NONE));
    return t;
}

/* ---- processors in turn ---- */

static bool take_kick(u32 cpu)
{
    return __atomic_exchange_n(&fake.kicked[cpu], false, __ATOMIC_SEQ_CST);
}

void fake_interrupt(u32 cpu, u8 vector)
{
    fake_cpu = cpu;
    irq_physical(vector);
}

struct vcpu *fake_enter(u32 cpu)
{
    struct vcpu *v;

    fake_cpu = cpu;
    if (take_kick(cpu))
        irq_physical(APIC_VECTOR_KICK);
    for (;;) {
        if (!running[cpu])
            running[cpu] = vcpu_pick();
        v = running[cpu];
        if (!v)
            return NULL;
        if (__atomic_load_n(&v->pending, __ATOMIC_ACQUIRE)) {
            fake_leave(cpu, vcpu_pending_work(v));
            if (!running[cpu])
                continue;
        }
        vcpu_enter(v);
        return v;
    }
}

void fake_until(u32 cpu, const struct vcpu *v)
{
    while (fake_enter(cpu) != v) {
        ASSERT(sched_state(&v->se) >= SCHED_RUNNABLE);
        irq_physical(APIC_VECTOR_TIMER);
    }
}

void fake_leave(u32 cpu, enum vcpu_action action)
{
    struct vcpu *v = running[cpu];

    fake_cpu = cpu;
    if (action == VCPU_RESUME)
        return;
    running[cpu] = NULL;
    vcpu_put(v, action);
}

static enum vcpu_action make_call(u32 cpu, u64 nr, const u64 *args)
{
    static const u8 where[] = {RDI, RSI, RDX, R10, R8};
    struct vcpu *v = pcpus[cpu]->dom0;

    fake_until(cpu, v);
    v->gpr[RAX] = nr;
    for (u32 i = 0; i < ARRAY_SIZE(where); i++)
        v->gpr[where[i]] = args[i];
    v->next_rip = v->rip + 3;
    return exit_hypercall(v, 0, true);
}

s64 fake_call(u32 cpu, u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    u64 args[] = {a, b, c, d, e};
    enum vcpu_action action = make_call(cpu, nr, args);

    ASSERT(action == VCPU_RESUME);
    return fake_result(cpu);
}

void fake_run(u32 cpu, u64 handle, u64 flags)
{
    u64 args[5] = {handle, flags};

    fake_leave(cpu, make_call(cpu, SOCLE_HC_VCPU_RUN, args));
}

s64 fake_result(u32 cpu)
{
    return (s64)pcpus[cpu]->dom0->gpr[RAX];
}

u32 fake_domain(u32 n, u32 page)
{
    s64 id = fake_call(0, SOCLE_HC_DOMAIN_CREATE, 0, 0, 0, 0, 0);

    ASSERT(id > 0);
    ASSERT(!fake_call(0, SOCLE_HC_DOMAIN_SET, (u64)id, SOCLE_PARAM_LAPIC, 1, 0, 0));
    for (u32 i = 0; i < n; i++)
        ASSERT(fake_call(0, SOCLE_HC_VCPU_CREATE, (u64)id, i, DOM0_PA(page + i), 100 + i, 0) > 0);
    return (u32)id;
}

u32 fake_handle(u32 domain, u32 index)
{
    struct domain *d = domain_get(domain);
    u32 handle = d->vcpus[index]->handle;

    domain_put(d);
    return handle;
}

struct socle_vcpu_page *fake_page(const struct vcpu *v)
{
    return (struct socle_vcpu_page *)RAM(shared_slot[v->handle]);
}
