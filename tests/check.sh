#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs the tests named: unit, fuzz, format, tidy, emulator (the last with MACHINES and TESTS as `make help`
# says). Prints a line each, what failed in full, and closes with "N passed, N failed". `make check` and
# `make test` call it.
set -u
cd "$(dirname "$0")/.." || exit 2
build=build
make=${MAKE:-make}
jobs=$(nproc)
logs=$build/logs/check
mkdir -p "$logs"
passed=0 failed=0

row() { printf '%-7s %s\n' "$1" "$2"; }

# Builds a make target quietly; a failure is shown and counts as one failed test.
build_step() {
    local log="$logs/$1.log"

    "$make" --no-print-directory -k -j"$jobs" "$1" >"$log" 2>&1 && return 0
    failed=$((failed + 1))
    grep -vE '^  (CC|LD|NASM) |^make' "$log"
    return 1
}

run_unit() {
    local test log n good=0 bad=0 programs=0 start=$SECONDS

    build_step unit-programs || row unit "some programs do not build"
    for test in tests/unit/test_*.c; do
        [ -e "$test" ] || continue
        test=$(basename "$test" .c)
        [ -x "$build/unit/$test" ] || continue
        log="$logs/$test.log"
        programs=$((programs + 1))
        timeout 60 "$build/unit/$test" >"$log" 2>&1
        local status=$?
        n=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
        good=$((good + ${n:-0}))
        if [ $status -ne 0 ]; then
            n=$(sed -n 's/^\[  FAILED  \].* \([0-9]*\) test(s).*/\1/p' "$log" | tail -n 1)
            bad=$((bad + ${n:-1}))
            echo "---- $test: exit $status"
            grep -v '^\[ *\(RUN\|OK\) *\]' "$log" | tail -n 60
        fi
    done
    passed=$((passed + good)) failed=$((failed + bad))
    row unit "$programs programs: $good passed, $bad failed ($((SECONDS - start)) s)"
}

# One fuzz target for FUZZTIME seconds. New inputs stay in build/; what crashes is kept there and shown.
fuzz_one() {
    local name=$1 corpus="$build/fuzz/corpus/$1" seeds="tests/fuzz/corpus/$1" log="$logs/$1.log"

    mkdir -p "$corpus" "$build/fuzz/crashes"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    "$build/fuzz/$name" -max_total_time="${FUZZTIME:-5}" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$build/fuzz/crashes/$name-" "$corpus" $seeds >"$log" 2>&1
}

run_fuzz() {
    local target name good=0 bad=0 start=$SECONDS
    declare -A running=()

    build_step fuzz-programs || row fuzz "some targets do not build"
    reap() {
        local pid done_pid status

        wait -n -p done_pid "${!running[@]}"
        status=$?
        pid=$done_pid name=${running[$pid]}
        unset "running[$pid]"
        if [ $status -eq 0 ]; then
            good=$((good + 1))
        else
            bad=$((bad + 1))
            echo "---- $name: exit $status"
            tail -n 40 "$logs/$name.log"
        fi
    }
    for target in tests/fuzz/fuzz_*.c; do
        [ -e "$target" ] || continue
        name=$(basename "$target" .c)
        [ -x "$build/fuzz/$name" ] || continue
        [ ${#running[@]} -lt "$jobs" ] || reap
        fuzz_one "$name" &
        running[$!]=$name
    done
    while [ ${#running[@]} -gt 0 ]; do reap; done
    passed=$((passed + good)) failed=$((failed + bad))
    row fuzz "$((good + bad)) targets, ${FUZZTIME:-5} s each: $good passed, $bad failed ($((SECONDS - start)) s)"
}

# A make target that passes or fails as a whole.
run_make() {
    local start=$SECONDS

    if build_step "$2"; then
        passed=$((passed + 1))
        row "$1" "passed ($((SECONDS - start)) s)"
    else
        row "$1" "failed"
    fi
}

# pytest's own lines are shown as they come. An emulator keeps one processor busy; more than four want much memory.
run_emulator() {
    local log="$logs/emulator.log" workers=$((jobs < 4 ? jobs : 4)) closing n

    /usr/bin/python3 -m pytest -p no:cacheprovider -ra -v -n $workers --dist loadgroup --durations 25 \
        ${TESTS:+-k "$TESTS"} tests/emulator 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]}
    closing=$(grep -E '^=+ .*(passed|failed|error|no tests ran|deselected).* in ' "$log" | tail -n 1)
    n=$(sed -n 's/.* \([0-9]*\) passed.*/\1/p' <<<"$closing")
    passed=$((passed + ${n:-0}))
    n=$(grep -oE '[0-9]+ (failed|error)' <<<"$closing" | awk '{ n += $1 } END { print n + 0 }')
    # Whatever else pytest stops at (5: no test matched) is a failure too.
    [ "$status" -eq 0 ] || [ "$n" -gt 0 ] || n=1
    failed=$((failed + n))
    row emulator "exit $status"
}

for step in "$@"; do
    case $step in
    unit) run_unit ;;
    fuzz) run_fuzz ;;
    format) run_make format format-check ;;
    tidy) run_make tidy tidy ;;
    emulator) run_emulator ;;
    *) echo "$0: no such step: $step" >&2; exit 2 ;;
    esac
done
echo "$passed passed, $failed failed" | tee $build/logs/summary
[ $failed -eq 0 ]
