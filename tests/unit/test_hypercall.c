/* SPDX-License-Identifier: BSD-2-Clause */
/* Hypercalls with arguments that are not allowed, which change nothing, and with ones that are. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GPA  DOM0_PA(200) /* a good page */
#define HOLE (HOLE_PFN << PAGE_SHIFT)
#define WX   (SOCLE_MAP_WRITE | SOCLE_MAP_EXEC)
#define BIG  (1ull << 32)

static u32 domain, handle;
static struct fake_totals before;

static int start(void **state)
{
    (void)state;
    fake_start(2);
    before = fake_totals();
    domain = fake_domain(2, 0);
    handle = fake_handle(domain, 0);
    return 0;
}

static s64 call(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    return fake_call(0, nr, a, b, c, d, e);
}

static s64 destroy(u32 id)
{
    s64 r;

    while ((r = call(SOCLE_HC_DOMAIN_DESTROY, id, 0, 0, 0, 0)) == -E_AGAIN)
        fake_enter(1);
    return r;
}

static int stop(void **state)
{
    struct fake_totals after;

    (void)state;
    for (u32 id = 1; id < SOCLE_MAX_DOMAINS; id++)
        destroy(id);
    after = fake_totals();
    assert_memory_equal(&before, &after, sizeof(before));
    return 0;
}

/* What a refused call must leave as it is. */
struct snapshot {
    struct fake_totals totals;
    struct socle_domain_info domain;
};

static struct snapshot take_snapshot(void)
{
    struct snapshot s;
    struct domain *d = domain_get(domain);

    memset(&s, 0, sizeof(s));
    s.totals = fake_totals();
    domain_describe(d, &s.domain);
    domain_put(d);
    return s;
}

struct refused {
    u64 nr, a, b, c, d, e;
    s64 result;
};

static void check_refused(const struct refused *calls, u32 n)
{
    struct snapshot was = take_snapshot();

    for (u32 i = 0; i < n; i++) {
        const struct refused *x = &calls[i];
        s64 result = call(x->nr, x->a, x->b, x->c, x->d, x->e);
        struct snapshot is = take_snapshot();

        if (result != x->result || memcmp(&was, &is, sizeof(is)))
            fail_msg("call %u: result %lld instead of %lld%s", i, (long long)result,
                     (long long)x->result, result == x->result ? ", and a change" : "");
    }
}
#define CHECK_REFUSED(...)                                       \
    do {                                                         \
        const struct refused calls_[] = {__VA_ARGS__};           \
        check_refused(calls_, sizeof(calls_) / sizeof(*calls_)); \
    } while (0)

/* Every page argument: not aligned, Socle's, in a hole, beyond RAM. */
#define BAD_PAGES(nr, err_none, ...)                                            \
    {nr, __VA_ARGS__(GPA + 1), -E_INVAL}, {nr, __VA_ARGS__(GPA + 8), -E_INVAL}, \
        {nr, __VA_ARGS__(0x1000), -E_PERM}, {nr, __VA_ARGS__(HOLE), -E_PERM},   \
        {nr, __VA_ARGS__(MAX_PFN << PAGE_SHIFT), -E_PERM},                      \
        {nr, __VA_ARGS__(~0ull << PAGE_SHIFT), -E_PERM},                        \
    {                                                                           \
        nr, __VA_ARGS__(0), err_none                                            \
    }

static void test_numbers(void **state)
{
    (void)state;
    CHECK_REFUSED({SOCLE_HC_END, 0, 0, 0, 0, 0, -E_NOSYS}, {~0ull, 0, 0, 0, 0, 0, -E_NOSYS},
                  {SOCLE_HC_INFO | BIG, GPA, 0, 0, 0, 0, -E_NOSYS});
}

static void test_pages(void **state)
{
    (void)state;
#define A(gpa)    gpa, 0, 0, 0, 0
#define B0(gpa)   0, gpa, 0, 0, 0
#define BV(gpa)   handle, gpa, 0, 0, 0
#define EV(gpa)   gpa, 0x60, 0, 0, 0
#define CV(gpa)   domain, 9, gpa, 1, 0
#define DL(gpa)   domain, gpa, 0, 0, 0
#define GET(gpa)  handle, SOCLE_STATE_REGS, gpa, 144, 0
#define MSRS(gpa) handle, SOCLE_STATE_MSRS, gpa, 16, 0
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_INFO, -E_PERM, A));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_LOG_READ, -E_PERM, B0));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_DOMAIN_NEXT, -E_PERM, B0));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_DIRTY_LOG, -E_PERM, DL));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_EVENTS, 0, EV)); /* 0 ends what is not there */
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_VCPU_STATS, -E_PERM, BV));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_VCPU_GET, -E_PERM, GET));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_VCPU_GET, -E_PERM, MSRS));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_VCPU_SET, -E_PERM, GET));
    CHECK_REFUSED(BAD_PAGES(SOCLE_HC_VCPU_CREATE, -E_INVAL, CV));
}

static void test_ids(void **state)
{
    static const u64 domain_calls[] = {
        SOCLE_HC_MAP,      SOCLE_HC_UNMAP,        SOCLE_HC_PROTECT,        SOCLE_HC_VCPU_CREATE,
        SOCLE_HC_MSI,      SOCLE_HC_DOORBELL_ADD, SOCLE_HC_DOMAIN_DESTROY, SOCLE_HC_DOORBELL_REMOVE,
        SOCLE_HC_DIRTY_LOG};
    static const u64 vcpu_calls[] = {SOCLE_HC_VCPU_RUN, SOCLE_HC_VCPU_STOP,   SOCLE_HC_VCPU_GET,
                                     SOCLE_HC_VCPU_SET, SOCLE_HC_VCPU_SIGNAL, SOCLE_HC_VCPU_STATS};
    static const u64 bad_domains[] = {0, 2, 255, SOCLE_MAX_DOMAINS, BIG, BIG | 1, ~0ull};
    static const u64 bad_vcpus[] = {4, 1023, SOCLE_MAX_VCPUS, BIG, BIG | 2, ~0ull};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(domain_calls); i++)
        for (u32 k = 0; k < ARRAY_SIZE(bad_domains); k++)
            CHECK_REFUSED({domain_calls[i], bad_domains[k], 1, GPA, 4, WX, -E_NOENT});
    for (u32 i = 0; i < ARRAY_SIZE(vcpu_calls); i++)
        for (u32 k = 0; k < ARRAY_SIZE(bad_vcpus); k++)
            CHECK_REFUSED({vcpu_calls[i], bad_vcpus[k], 1, GPA, 144, 0, -E_NOENT});
    for (u32 k = 1; k < ARRAY_SIZE(bad_domains); k++)
        CHECK_REFUSED({SOCLE_HC_DOMAIN_SET, bad_domains[k], 1, 1, 0, 0, -E_NOENT});
}

/* Dom0's own vCPUs are in its hands already, and its memory is not to be changed. */
static void test_dom0_itself(void **state)
{
    (void)state;
    CHECK_REFUSED({SOCLE_HC_VCPU_RUN, 1, 0, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_STOP, 1, 0, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_GET, 1, SOCLE_STATE_REGS, GPA, 144, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SET, 1, SOCLE_STATE_REGS, GPA, 144, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SIGNAL, 1, SOCLE_SIGNAL_INIT, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, 0, SOCLE_PARAM_LAPIC, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, 0, SOCLE_PARAM_AFFINITY, 1, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_STATS, 1, GPA, 0, 0, 0, 0});
    assert_int_equal(call(SOCLE_HC_DOMAIN_SET, 0, SOCLE_PARAM_WEIGHT, 2048, 0, 0), 0);
    assert_int_equal(pcpus[1]->dom0->se.weight, 2048);
}

static void test_map_refused(void **state)
{
    u64 d = domain, pfn = DOM0_PFN(0), top = BIT(36);

    (void)state;
    CHECK_REFUSED(
        {SOCLE_HC_MAP, d, 0, pfn, 0, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, pfn, SOCLE_MAP_MAX_PAGES + 1, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, pfn, ~0ull, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, top, pfn, 1, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, top - 1, pfn, 2, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, ~0ull, pfn, 2, WX, -E_INVAL},
        {SOCLE_HC_MAP, d, 1, 0, 513, WX, -E_INVAL}, /* no large leaf would serve */
        {SOCLE_HC_MAP, d, 0, pfn, 1, 0x10, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, pfn, 1, 0x100, -E_INVAL}, /* NPT_MAP_DEVICE */
        {SOCLE_HC_MAP, d, 0, pfn, 1, BIG | WX, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, pfn, 1, SOCLE_MAP_ROM | SOCLE_MAP_WRITE, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, pfn, 1, SOCLE_MAP_MMIO | SOCLE_MAP_EXEC, -E_INVAL},
        {SOCLE_HC_MAP, d, 0, SOCLE_FRAMES - 1, 1, WX, -E_PERM},
        {SOCLE_HC_MAP, d, 0, SOCLE_FRAMES - 1, 2, WX, -E_PERM},
        {SOCLE_HC_MAP, d, 0, 0, 512, WX, -E_PERM}, {SOCLE_HC_MAP, d, 0, MAX_PFN, 1, WX, -E_PERM},
        {SOCLE_HC_MAP, d, 0, ~0ull, 1, WX, -E_PERM},
        /* Foreign at the end only, behind more than one piece's work: nothing stays mapped. */
        {SOCLE_HC_MAP, d, HOLE_PFN - 4096, HOLE_PFN - 4096, 4097, WX, -E_PERM},
        {SOCLE_HC_UNMAP, d, 0, 0, 0, 0, -E_INVAL}, {SOCLE_HC_UNMAP, d, top, 1, 0, 0, -E_INVAL},
        {SOCLE_HC_UNMAP, d, 5, top, 0, 0, -E_INVAL}, {SOCLE_HC_UNMAP, d, ~0ull, 2, 0, 0, -E_INVAL},
        {SOCLE_HC_PROTECT, d, 0, 0, 0, 0, -E_INVAL},
        {SOCLE_HC_PROTECT, d, 0, SOCLE_MAP_MAX_PAGES + 1, 0, 0, -E_INVAL});
}

static void test_vcpus_refused(void **state)
{
    (void)state;
    CHECK_REFUSED({SOCLE_HC_VCPU_CREATE, domain, BIG | 5, GPA, 1, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_CREATE, domain, 5, GPA, SOCLE_EVENT_PORTS, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_CREATE, domain, 1, GPA, 1, 0, -E_EXIST},
                  {SOCLE_HC_VCPU_RUN, handle, 2, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_RUN, handle, BIG, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SIGNAL, handle, 0, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SIGNAL, handle, 6, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SIGNAL, handle, BIG | 1, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_GET, handle, SOCLE_STATE_REGS, GPA, PAGE_SIZE + 1, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_GET, handle, SOCLE_STATE_REGS, GPA, ~0ull, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_GET, handle, 0, GPA, 8, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_GET, handle, BIG | SOCLE_STATE_REGS, GPA, 144, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SET, handle, BIG | SOCLE_STATE_REGS, GPA, 144, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SET, handle, SOCLE_STATE_REGS, GPA, PAGE_SIZE + 1, 0, -E_INVAL},
                  {SOCLE_HC_VCPU_SET, handle, SOCLE_STATE_REGS, GPA, 143, 0, -E_INVAL});
}

static void test_parameters_refused(void **state)
{
    u64 d = domain;

    (void)state;
    CHECK_REFUSED({SOCLE_HC_DOMAIN_SET, d, 0, 1, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, 7, 1, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, BIG | SOCLE_PARAM_WEIGHT, 1, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_WEIGHT, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_WEIGHT, 65537, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_WEIGHT, BIG | 5, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_AFFINITY, 4, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_LAPIC, 2, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOMAIN_SET, d, SOCLE_PARAM_LAPIC, 0, 0, 0, -E_BUSY},
                  {SOCLE_HC_MSI, d, 0, 0x41, 0, 0, -E_INVAL},
                  {SOCLE_HC_MSI, d, 0xfee00000, BIG | 0x41, 0, 0, -E_INVAL},
                  {SOCLE_HC_MSI, d, 0xfee00000, 0x300, 0, 0, -E_INVAL},
                  {SOCLE_HC_EVENTS, GPA, 31, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_EVENTS, GPA, 256, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_EVENTS, GPA, BIG | 0x60, 0, 0, 0, -E_INVAL},
                  {SOCLE_HC_DOORBELL_ADD, d, 0, SOCLE_DOORBELL(1, 3, 0), 0, 0, -E_INVAL},
                  {SOCLE_HC_DOORBELL_REMOVE, d, 0, SOCLE_DOORBELL(1, 4, 0), 0, 0, -E_NOENT});
}

static void test_names_are_printable(void **state)
{
    struct socle_domain_info *info = (struct socle_domain_info *)RAM(GPA);

    (void)state;
    assert_int_equal(
        call(SOCLE_HC_DOMAIN_SET, domain, SOCLE_PARAM_NAME_LO, 0x4241071b20c9447eull, 0, 0), 0);
    assert_int_equal(
        call(SOCLE_HC_DOMAIN_SET, domain, SOCLE_PARAM_NAME_HI, 0x4848484848484848ull, 0, 0), 0);
    assert_int_equal(call(SOCLE_HC_DOMAIN_NEXT, 0, GPA, 0, 0, 0), 0);
    assert_int_equal(info->id, 0);
    assert_int_equal(call(SOCLE_HC_DOMAIN_NEXT, 1, GPA, 0, 0, 0), 0);
    assert_int_equal(info->id, domain);
    assert_memory_equal(info->name, "~D\0 \0\0ABHHHHHHHH", 16);
    assert_int_equal(info->vcpus, 2);
    assert_int_equal(info->vcpu_handle[0], handle);
    assert_int_equal(call(SOCLE_HC_DOMAIN_NEXT, domain + 1, GPA, 0, 0, 0), -E_NOENT);
}

static void test_map_unmap(void **state)
{
    struct domain *d = domain_get(domain);

    (void)state;
    domain_put(d);
    assert_int_equal(call(SOCLE_HC_MAP, domain, 0, DOM0_PFN(0), 1024, WX), 0);
    assert_int_equal(d->npt.mapped_pages, 1024);
    assert_int_equal(frame_lent_pages(), 1024);
    assert_int_equal(call(SOCLE_HC_PROTECT, domain, 5, 10, 0, 0), 0);
    assert_int_equal(call(SOCLE_HC_MAP, domain, 2048, 0, 512, SOCLE_MAP_MMIO), 0);
    assert_int_equal(frame_lent_pages(), 1024);
    assert_int_equal(call(SOCLE_HC_UNMAP, domain, 0, BIT(36), 0, 0), 0);
    assert_int_equal(d->npt.mapped_pages, 0);
    assert_int_equal(frame_lent_pages(), 0);
}

/* PROTECT of more small leaves than one call does: repeated, it comes to an end. */
static void test_long_protect(void **state)
{
    u32 calls = 1;
    s64 r;

    (void)state;
    for (u64 gfn = 0; gfn < 160 * 1024; gfn += 512)
        assert_int_equal(call(SOCLE_HC_MAP, domain, gfn, DOM0_PFN(1), 512, WX), 0);
    while ((r = call(SOCLE_HC_PROTECT, domain, 0, 160 * 1024, 0, 0)) == -E_AGAIN)
        assert_true(++calls < 20);
    assert_int_equal(r, 0);
    assert_true(calls > 1);
}

/* A frame that a guest has is dom0's all the same: it may be shared again. */
static void test_lent_frames(void **state)
{
    (void)state;
    assert_int_equal(call(SOCLE_HC_MAP, domain, 0, DOM0_PFN(200), 1, WX), 0);
    assert_int_equal(call(SOCLE_HC_INFO, GPA, 0, 0, 0, 0), 0);
    assert_int_equal(((struct socle_info *)RAM(GPA))->frames_lent, 1);
    assert_int_equal(((struct socle_info *)RAM(GPA))->vcpus, 4);
    assert_true(call(SOCLE_HC_VCPU_CREATE, domain, 7, GPA, 1, 0) > 0);
}

static void test_dying_domain(void **state)
{
    (void)state;
    assert_int_equal(call(SOCLE_HC_DOMAIN_DESTROY, domain, 0, 0, 0, 0), -E_AGAIN);
    assert_int_equal(call(SOCLE_HC_MAP, domain, 0, DOM0_PFN(0), 1, WX), -E_NOENT);
    assert_int_equal(call(SOCLE_HC_VCPU_CREATE, domain, 7, GPA, 1, 0), -E_NOENT);
    assert_int_equal(call(SOCLE_HC_VCPU_RUN, handle, 0, 0, 0, 0), -E_NOENT);
    assert_int_equal(call(SOCLE_HC_VCPU_STATS, handle, GPA, 0, 0, 0), -E_NOENT);
    assert_int_equal(destroy(domain), 0);
    assert_int_equal(destroy(domain), -E_NOENT);
}

/* Each step of a vCPU's creation fails once for want of memory. */
static void test_no_memory_for_a_vcpu(void **state)
{
    struct domain *d = domain_get(domain);
    struct snapshot was = take_snapshot();

    (void)state;
    domain_put(d);
    for (u32 pages = 0; pages < 4; pages++) {
        struct snapshot is;

        d->charge.limit = d->charge.pages + pages;
        assert_int_equal(call(SOCLE_HC_VCPU_CREATE, domain, 7, GPA, 1, 0), -E_NOMEM);
        is = take_snapshot();
        assert_memory_equal(&was, &is, sizeof(was));
    }
    d->charge.limit = ~0ull;
    assert_true(call(SOCLE_HC_VCPU_CREATE, domain, 7, GPA, 1, 0) > 0);
}

/* Until ids, or memory, are used up; then all go. */
static void test_many_domains(void **state)
{
    s64 id;
    u32 n = 0;

    (void)state;
    while ((id = call(SOCLE_HC_DOMAIN_CREATE, 0, 0, 0, 0, 0)) > 0)
        n++;
    assert_int_equal(id, -E_NOSPC);
    assert_int_equal(n, SOCLE_MAX_DOMAINS - 2);
    for (id = 0; call(SOCLE_HC_DOMAIN_NEXT, id, GPA, 0, 0, 0) == 0; id++)
        assert_int_equal(((struct socle_domain_info *)RAM(GPA))->id, id);
    assert_int_equal(id, SOCLE_MAX_DOMAINS);
}

static void test_many_vcpus(void **state)
{
    s64 r = 0;
    u32 n = 2;

    (void)state;
    for (; n < POOL_PAGES && r >= 0; n++)
        r = call(SOCLE_HC_VCPU_CREATE, domain, n, GPA, 1, 0);
    assert_int_equal(r, -E_NOMEM); /* seven eighths of the heap are gone */
    assert_true(pool_free_pages() > POOL_PAGES / 16);
    domain = (u32)call(SOCLE_HC_DOMAIN_CREATE, 0, 0, 0, 0, 0);
    assert_true(call(SOCLE_HC_VCPU_CREATE, domain, 0, GPA, 1, 0) > 0);
}

static void test_events(void **state)
{
    (void)state;
    assert_int_equal(call(SOCLE_HC_EVENTS, GPA, 0x60, 0, 0, 0), 0);
    CHECK_REFUSED({SOCLE_HC_EVENTS, GPA, 0x60, 0, 0, 0, -E_BUSY});
    assert_int_equal(call(SOCLE_HC_EVENTS, 0, 0, 0, 0, 0), 0);
    assert_int_equal(call(SOCLE_HC_EVENTS, 0, 0, 0, 0, 0), 0);
}

/* Only dom0's kernel calls, and only in 64-bit mode. */
static void test_who_may_call(void **state)
{
    struct vcpu *d = pcpus[0]->dom0, *g = vcpu_table[handle];

    (void)state;
    d->gpr[RAX] = SOCLE_HC_DOMAIN_CREATE;
    assert_int_equal(exit_hypercall(d, 3, true), VCPU_RESUME);
    assert_int_equal(d->gpr[RAX], (u64)-1);
    d->gpr[RAX] = SOCLE_HC_DOMAIN_CREATE;
    assert_int_equal(exit_hypercall(d, 0, false), VCPU_RESUME);
    assert_int_equal(d->gpr[RAX], (u32)-1000);
    g->gpr[RAX] = SOCLE_HC_DOMAIN_CREATE;
    assert_int_equal(exit_hypercall(g, 0, true), VCPU_RESUME);
    assert_int_equal(g->gpr[RAX], (u64)-1000);
    assert_int_equal(fake_totals().domains, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(test_numbers),
        TEST(test_pages),
        TEST(test_ids),
        TEST(test_dom0_itself),
        TEST(test_map_refused),
        TEST(test_vcpus_refused),
        TEST(test_parameters_refused),
        TEST(test_names_are_printable),
        TEST(test_map_unmap),
        TEST(test_long_protect),
        TEST(test_lent_frames),
        TEST(test_dying_domain),
        TEST(test_no_memory_for_a_vcpu),
        TEST(test_many_domains),
        TEST(test_many_vcpus),
        TEST(test_events),
        TEST(test_who_may_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
