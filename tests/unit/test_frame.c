// LIBS: -lpthread
/* SPDX-License-Identifier: BSD-2-Clause */
/* Frame ownership: who may lend what, counts of small and large mappings, overflow. */
#include "tests/unit/frame_maps.h"

#include "core/errno.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PFN (8 * 512 + 100) /* the last group is not whole */

static void *table;

/* Group 0: Socle. 1-3: dom0. 4: dom0 but for one hole. 5: dom0 but for one of Socle's. 6, 7, 8:
 * dom0. */
static int start(void **state)
{
    (void)state;
    table = calloc(1, frame_table_bytes(MAX_PFN));
    frame_init(table, MAX_PFN);
    frame_set_owner_range(0, 512, FRAME_SOCLE);
    frame_set_owner_range(512, MAX_PFN - 512, FRAME_DOM0);
    frame_set_owner_range(4 * 512 + 7, 1, FRAME_NONE);
    frame_set_owner_range(5 * 512 + 9, 1, FRAME_SOCLE);
    return 0;
}

static int end(void **state)
{
    (void)state;
    for (pfn_t pfn = 0; pfn < MAX_PFN; pfn++)
        assert_int_equal(frame_maps(pfn), 0);
    assert_int_equal(frame_lent_pages(), 0);
    free(table);
    return 0;
}

static void owners_are_known(void **state)
{
    (void)state;
    assert_int_equal(frame_owner(0), FRAME_SOCLE);
    assert_int_equal(frame_owner(512), FRAME_DOM0);
    assert_int_equal(frame_owner(4 * 512 + 7), FRAME_NONE);
    assert_int_equal(frame_owner(MAX_PFN), FRAME_NONE);
    assert_int_equal(frame_owner(UINT64_MAX), FRAME_NONE);
    assert_int_equal(frame_check(0, 512, false), -E_PERM);
    assert_int_equal(frame_check(512, 3 * 512, false), 0);
    assert_int_equal(frame_check(511, 3, false), -E_PERM);
    assert_int_equal(frame_check(512, 4 * 512, false), -E_PERM);
    assert_int_equal(frame_check(6 * 512, MAX_PFN - 6 * 512, false), 0);
    assert_int_equal(frame_check(6 * 512, MAX_PFN - 6 * 512 + 1, false), -E_PERM);
    assert_int_equal(frame_check(MAX_PFN, 1, false), -E_PERM);
    assert_int_equal(frame_check(600, UINT64_MAX, false), -E_PERM);
    frame_set_owner_range(600, 1, FRAME_SOCLE);
    assert_int_equal(frame_check(600, 1, false), -E_PERM);
    assert_int_equal(frame_check(600, 1, true), -E_PERM);
}

static void dom0s_own_map_has_no_frame_of_socle(void **state)
{
    (void)state;
    assert_int_equal(frame_check(0, 1, true), -E_PERM);
    assert_int_equal(frame_check(511, 2, true), -E_PERM);
    assert_int_equal(frame_check(512, 4 * 512, true), 0); /* with the hole */
    assert_int_equal(frame_check(512, 5 * 512, true), -E_PERM);
    assert_int_equal(frame_check(5 * 512, 9, true), 0);
    assert_int_equal(frame_check(5 * 512, 10, true), -E_PERM);
    assert_int_equal(frame_check(6 * 512, 1ull << 40, true), 0);
    assert_int_equal(frame_check(1ull << 39, 1ull << 39, true), 0);
}

static void only_dom0s_ram_is_lent(void **state)
{
    (void)state;
    assert_int_equal(frame_lend(0, 1, false), -E_PERM);
    assert_int_equal(frame_lend(0, 512, true), -E_PERM);
    assert_int_equal(frame_lend(4 * 512, 512, true), -E_PERM);
    assert_int_equal(frame_lend(8 * 512, 512, true), -E_PERM);
    assert_int_equal(frame_lend(8 * 512, 101, false), -E_PERM);
    assert_int_equal(frame_lend(MAX_PFN, 1, false), -E_PERM);
    assert_int_equal(frame_lend(UINT64_MAX, 2, false), -E_PERM);
    assert_int_equal(frame_lend(600, UINT64_MAX - 100, false), -E_PERM);
    /* All or nothing, over several groups: end() finds no count left. */
    assert_int_equal(frame_lend(512, 4 * 512, true), -E_PERM);
    assert_int_equal(frame_lend(600, 4 * 512, false), -E_PERM);
    assert_int_equal(frame_lend(4 * 512, 8, false), -E_PERM);
    assert_int_equal(frame_lend(8 * 512, 100, false), 0);
    frame_unlend(8 * 512, 100, false);
}

static void small_and_large_mappings_add_up(void **state)
{
    (void)state;
    assert_int_equal(frame_lend(512, 1024, true), 0);
    assert_int_equal(frame_lend(700, 512, false), 0);
    assert_int_equal(frame_lend(700, 1, false), 0);
    assert_int_equal(frame_maps(512), 1);
    assert_int_equal(frame_maps(700), 3);
    assert_int_equal(frame_maps(1211), 2);
    assert_int_equal(frame_maps(1212), 1);
    assert_int_equal(frame_lent_pages(), 1024 + 512 + 1);
    frame_lend_split(512);
    assert_int_equal(frame_maps(700), 3);
    frame_unlend(513, 511, false);
    assert_int_equal(frame_maps(512), 1);
    assert_int_equal(frame_maps(513), 0);
    frame_unlend(512, 1, false);
    frame_unlend(1024, 512, true);
    assert_int_equal(frame_maps(700), 2);
    frame_unlend(700, 1, false);
    frame_unlend(700, 512, false);
}

static void counts_do_not_overflow(void **state)
{
    u64 most = UINT32_MAX / 512;

    (void)state;
    for (u64 i = 0; i < most; i++)
        assert_int_equal(frame_lend(512, 512, true), 0);
    assert_int_equal(frame_lend(512, 512, true), -E_OVERFLOW);
    assert_int_equal(frame_lend(512, 512, false), -E_OVERFLOW);
    assert_int_equal(frame_lend(1024 - 512, 511, false), 0);
    assert_int_equal(frame_lend(600, 1, false), -E_OVERFLOW);
    assert_int_equal(frame_maps(512), most + 1);
    assert_int_equal(frame_lend(1024, 512, true), 0); /* its neighbour is not affected */
    assert_int_equal(frame_lend(1023, 2, false), -E_OVERFLOW);
    frame_lend_split(512);
    assert_int_equal(frame_maps(512), most + 1);
    frame_unlend(512, 512, false);
    for (u64 i = 1; i < most; i++)
        frame_unlend(512, 512, true);
    frame_unlend(512, 511, false);
    frame_unlend(1024, 512, true);
}

static void misuse(u32 what)
{
    switch (what) {
    case 0:
        frame_unlend(600, 1, false);
        break;
    case 1:
        frame_lend(512, 512, true);
        frame_unlend(512, 512, false);
        break;
    case 2:
        frame_lend(512, 511, false);
        frame_unlend(512, 512, false);
        break;
    case 3:
        frame_lend_split(512);
        break;
    default:
        frame_lend(600, 1, false);
        frame_set_owner_range(600, 1, FRAME_SOCLE);
    }
}

static void broken_invariants_stop_socle(void **state)
{
    (void)state;
    for (u32 what = 0; what < 5; what++) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            fclose(stderr);
            misuse(what);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}

static void *lend_and_unlend(void *errors)
{
    for (u32 i = 0; i < 3000; i++) {
        u64 *bad = errors;

        *bad += frame_lend(600, 700, false) != 0;
        *bad += frame_lend(512, 1024, true) != 0;
        *bad += frame_lend(512, 4 * 512, true) != -E_PERM;
        frame_lend_split(1024);
        frame_unlend(512, 512, true);
        frame_unlend(1024, 512, false);
        frame_unlend(600, 700, false);
    }
    return NULL;
}

static void processors_count_together(void **state)
{
    u64 errors[2] = {0};
    pthread_t thread[2];

    (void)state;
    for (u32 i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, lend_and_unlend, &errors[i]), 0);
    for (u32 i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(errors[0] + errors[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(owners_are_known, start, end),
        cmocka_unit_test_setup_teardown(dom0s_own_map_has_no_frame_of_socle, start, end),
        cmocka_unit_test_setup_teardown(only_dom0s_ram_is_lent, start, end),
        cmocka_unit_test_setup_teardown(small_and_large_mappings_add_up, start, end),
        cmocka_unit_test_setup_teardown(counts_do_not_overflow, start, end),
        cmocka_unit_test_setup_teardown(broken_invariants_stop_socle, start, end),
        cmocka_unit_test_setup_teardown(processors_count_together, start, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
