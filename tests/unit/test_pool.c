// SOURCES: core/pool.c
// LIBS: -lpthread
/* SPDX-License-Identifier: BSD-2-Clause */
/* The page heap: zeroed pages, charges and limits, running out, double frees. */
#include "core/pool.h"

#include "core/lib.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64
static u8 arena[PAGES * PAGE_SIZE] ALIGNED(4096);

static int start(void **state)
{
    (void)state;
    memset(arena, 0xcc, sizeof(arena));
    pool_init(arena, sizeof(arena), 0);
    return 0;
}

static bool is_zero(const u8 *p, u64 bytes)
{
    for (u64 i = 0; i < bytes; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static void pages_are_zeroed_and_apart(void **state)
{
    u8 *page[PAGES];
    u64 n = 0;

    (void)state;
    assert_int_equal(pool_total_pages(), PAGES);
    for (u32 round = 0; round < 3; round++) {
        for (n = 0; (page[n] = pool_alloc(NULL)); n++) {
            assert_true(IS_ALIGNED((u64)page[n], PAGE_SIZE));
            assert_true(page[n] >= arena && page[n] < arena + sizeof(arena));
            assert_true(is_zero(page[n], PAGE_SIZE));
            memset(page[n], 0x5a, PAGE_SIZE); /* a page handed out twice would not be zero */
        }
        assert_int_equal(n, PAGES - 1); /* one page is the bitmap */
        assert_int_equal(pool_free_pages(), 0);
        while (n)
            pool_free(page[--n], NULL);
        assert_int_equal(pool_free_pages(), PAGES - 1);
    }
}

static void limits_hold_per_charge(void **state)
{
    struct charge a = {.limit = 2}, b = {.limit = UINT64_MAX}, none = {.limit = 0};
    void *p, *q;

    (void)state;
    assert_null(pool_alloc(&none));
    p = pool_alloc(&a);
    q = pool_alloc(&a);
    assert_non_null(p);
    assert_non_null(q);
    assert_null(pool_alloc(&a));
    assert_int_equal(a.pages, 2);
    assert_non_null(pool_alloc(&b));
    pool_free(p, &a);
    assert_int_equal(a.pages, 1);
    assert_non_null(pool_alloc(&a));
    while (pool_alloc(&b))
        ;
    assert_int_equal(a.pages + b.pages, PAGES - 1);
    pool_free(q, &a);
    assert_int_equal(pool_free_pages(), 1);
}

static void must_panic(void (*call)(void *, struct charge *), void *page, struct charge *charge)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        fclose(stderr);
        call(page, charge);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void free_must_panic(void *page, struct charge *charge)
{
    must_panic(pool_free, page, charge);
}

static void init_with_table(void *bytes, struct charge *charge)
{
    (void)charge;
    pool_init(arena, sizeof(arena), (u64)bytes);
}

static void the_table_is_not_handed_out(void **state)
{
    u8 *table, *page;
    u64 n = 0;

    (void)state;
    memset(arena, 0xcc, sizeof(arena));
    table = pool_init(arena, sizeof(arena), 3 * PAGE_SIZE + 1);
    assert_ptr_equal(table, arena + PAGE_SIZE); /* behind the bitmap */
    assert_true(is_zero(table, 4 * PAGE_SIZE));
    assert_int_equal(pool_total_pages(), PAGES);
    assert_int_equal(pool_free_pages(), PAGES - 5);
    for (; (page = pool_alloc(NULL)); n++)
        assert_true(page >= table + 4 * PAGE_SIZE && page < arena + sizeof(arena));
    assert_int_equal(n, PAGES - 5);
    free_must_panic(table, NULL);
    must_panic(init_with_table, (void *)(PAGES * PAGE_SIZE), NULL);
    must_panic(init_with_table, (void *)((PAGES - 1) * PAGE_SIZE), NULL);
    must_panic(init_with_table, (void *)UINT64_MAX, NULL);
}

static void wrong_frees_are_caught(void **state)
{
    struct charge charge = {.limit = 4}, other = {.limit = 4};
    u8 *page = pool_alloc(&charge);

    (void)state;
    free_must_panic(page + 8, &charge);
    free_must_panic(page + PAGE_SIZE, &charge); /* never handed out */
    free_must_panic(page, &other);
    free_must_panic(arena, NULL);
    free_must_panic(arena + sizeof(arena), NULL);
    pool_free(NULL, NULL);
    pool_free(page, &charge);
    free_must_panic(page, &charge);
}

static void *allocate_and_free(void *charge)
{
    for (u32 i = 0; i < 20000; i++) {
        u64 *a = pool_alloc(charge), *b = pool_alloc(charge);

        if (a)
            *a = (u64)charge;
        if (b)
            *b = (u64)charge + 1;
        if (a && *a != (u64)charge)
            return "shared";
        if (a)
            pool_free(a, charge);
        if (b)
            pool_free(b, charge);
    }
    return NULL;
}

static void processors_share_the_pool(void **state)
{
    struct charge charge[2] = {{.limit = 9}, {.limit = 1}};
    pthread_t thread[2];
    void *error;

    (void)state;
    for (u32 i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, allocate_and_free, &charge[i]), 0);
    for (u32 i = 0; i < 2; i++) {
        pthread_join(thread[i], &error);
        assert_null(error);
        assert_int_equal(charge[i].pages, 0);
    }
    assert_int_equal(pool_free_pages(), PAGES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(pages_are_zeroed_and_apart, start),
        cmocka_unit_test_setup(limits_hold_per_charge, start),
        cmocka_unit_test_setup(the_table_is_not_handed_out, start),
        cmocka_unit_test_setup(wrong_frees_are_caught, start),
        cmocka_unit_test_setup(processors_share_the_pool, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
