/* SPDX-License-Identifier: BSD-2-Clause */
/* soclectl: shows what Socle runs, from dom0. It asks /dev/socle (dom0-shim/kmod/uapi.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "dom0-shim/kmod/uapi.h"

#define MAX_VCPUS 1024

static const char usage[] =
    "usage: soclectl COMMAND [OPTION]...\n"
    "\n"
    "  info                 the hypervisor: version, processors, memory\n"
    "  list                 domains: vCPUs, state, memory, processor time\n"
    "  stat [--json] [--once] [--delay SECONDS]\n"
    "                       exits per second and vCPU, once a second; q quits. With --once, or "
    "when\n"
    "                       the output is not a terminal, the totals since the start, once\n"
    "  log [-f]             Socle's log; -f waits for more\n"
    "  --help               this text\n";

static const char *const stat_names[SOCLE_STATS] = {
    [SOCLE_STAT_EXITS] = "exits",
    [SOCLE_STAT_INTERRUPT] = "interrupt",
    [SOCLE_STAT_WINDOW] = "window",
    [SOCLE_STAT_CPUID] = "cpuid",
    [SOCLE_STAT_MSR_READ] = "msr_read",
    [SOCLE_STAT_MSR_WRITE] = "msr_write",
    [SOCLE_STAT_CR] = "cr",
    [SOCLE_STAT_HLT] = "hlt",
    [SOCLE_STAT_IO] = "io",
    [SOCLE_STAT_DOORBELL] = "doorbell",
    [SOCLE_STAT_MMIO] = "mmio",
    [SOCLE_STAT_APIC_MMIO] = "apic_mmio",
    [SOCLE_STAT_FAULT] = "fault",
    [SOCLE_STAT_HYPERCALL] = "hypercall",
    [SOCLE_STAT_EXCEPTION] = "exception",
    [SOCLE_STAT_OTHER] = "other",
    [SOCLE_STAT_TO_DOM0] = "to_dom0",
    [SOCLE_STAT_INJECTED] = "injected",
    [SOCLE_STAT_IPI] = "ipi",
    [SOCLE_STAT_TIMER] = "timer",
    [SOCLE_STAT_FLUSH] = "flush",
    [SOCLE_STAT_SWITCH] = "switch",
};

/* The columns of `stat` on a terminal; --json gives all. */
static const struct {
    const char *title;
    u8 stat;
} columns[] = {
    {"EXITS", SOCLE_STAT_EXITS},    {"IO", SOCLE_STAT_IO},          {"MMIO", SOCLE_STAT_MMIO},
    {"BELL", SOCLE_STAT_DOORBELL},  {"APIC", SOCLE_STAT_APIC_MMIO}, {"MSR", SOCLE_STAT_MSR_WRITE},
    {"CPUID", SOCLE_STAT_CPUID},    {"HLT", SOCLE_STAT_HLT},        {"FAULT", SOCLE_STAT_FAULT},
    {"INTR", SOCLE_STAT_INTERRUPT}, {"DOM0", SOCLE_STAT_TO_DOM0},   {"INJ", SOCLE_STAT_INJECTED},
};

struct row {
    u32 domain;
    char name[17];
    u32 handle;
    struct socle_vcpu_stats now;
    struct socle_vcpu_stats before;
};

struct table {
    int count;
    struct row row[MAX_VCPUS];
};

static int device = -1;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    va_list args;

    fputs("soclectl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static void open_device(void)
{
    device = open("/dev/socle", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        return;
    }
    if (errno == EACCES || errno == EPERM) {
        die("cannot open /dev/socle: only root may (try sudo)");
    }
    if (errno == ENOENT || errno == ENXIO || errno == ENODEV) {
        die("cannot open /dev/socle: is socle.ko loaded? (modprobe socle; dmesg says why it "
            "failed)");
    }
    die("cannot open /dev/socle: %s", strerror(errno));
}

static void ask(unsigned long request, void *data, const char *what)
{
    if (ioctl(device, request, data) == 0) {
        return;
    }
    if (errno == ENOTTY) {
        die("socle.ko does not know this request (%s): soclectl and the module must be of one "
            "build",
            what);
    }
    die("Socle did not give %s: %s", what, strerror(errno));
}

/* ---- info ---------------------------------------------------------------------------------------
 */

static void print_size(const char *title, u64 bytes)
{
    if (bytes >= 10ull << 30) {
        printf("%-12s %.1f GiB\n", title, (double)bytes / (1ull << 30));
    } else if (bytes >= 10ull << 20) {
        printf("%-12s %.1f MiB\n", title, (double)bytes / (1ull << 20));
    } else {
        printf("%-12s %.1f KiB\n", title, (double)bytes / (1ull << 10));
    }
}

static int command_info(void)
{
    struct socle_info info;

    ask(SOCLE_IOC_INFO, &info, "information about itself");
    printf("%-12s %.32s\n", "version", info.version);
    printf("%-12s %.48s\n", "build id", info.build_id);
    printf("%-12s %u\n", "ABI", info.abi_version);
    printf("%-12s %u\n", "CPUs", info.cpus);
    printf("%-12s %.8s\n", "vendor", info.vendor);
    printf("%-12s %.128s\n", "features", info.features);
    printf("%-12s %" PRIu64 ".%03u MHz\n", "TSC", info.tsc_khz / 1000,
           (unsigned)(info.tsc_khz % 1000));
    print_size("memory", info.ram_bytes);
    print_size("image", info.image_bytes);
    print_size("heap", info.pool_bytes);
    print_size("heap free", info.pool_free_bytes);
    printf("%-12s %" PRIu64 "\n", "frames lent", info.frames_lent);
    printf("%-12s %u\n", "domains", info.domains);
    printf("%-12s %u\n", "vCPUs", info.vcpus);
    printf("%-12s %" PRIu64 ".%03u s\n", "uptime", info.uptime_ns / 1000000000,
           (unsigned)(info.uptime_ns / 1000000 % 1000));
    return 0;
}

/* ---- list ---------------------------------------------------------------------------------------
 */

static const char *state_name(u32 state)
{
    static const char *const names[] = {"stopped", "blocked", "running", "dying"};

    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static void for_each_domain(void (*visit)(const struct socle_domain_info *, void *), void *context)
{
    struct socle_ioc_domain request = {.first = 0};

    while (ioctl(device, SOCLE_IOC_DOMAIN, &request) == 0) {
        if (request.info.id < request.first) {
            die("Socle's list of domains does not end");
        }
        visit(&request.info, context);
        request.first = request.info.id + 1;
    }
    if (errno != ENOENT) {
        ask(SOCLE_IOC_DOMAIN, &request, "its domains"); /* says why not */
    }
}

static void print_domain(const struct socle_domain_info *d, void *context)
{
    (void)context;
    printf("%4u  %-16.16s  %5u  %-8s %10.1f %10.1f %8u %12.2f\n", d->id, d->name, d->vcpus,
           state_name(d->state), (double)d->mapped_pages / 256, (double)d->pool_pages / 256,
           d->weight, (double)d->cpu_ns / 1e9);
}

static int command_list(void)
{
    printf("%4s  %-16s  %5s  %-8s %10s %10s %8s %12s\n", "ID", "NAME", "VCPUS", "STATE", "MEM MiB",
           "OWN MiB", "WEIGHT", "CPU s");
    for_each_domain(print_domain, NULL);
    return 0;
}

/* ---- stat ---------------------------------------------------------------------------------------
 */

static void add_vcpu(struct table *table, const struct socle_domain_info *d, u32 handle)
{
    struct row *row = &table->row[table->count];
    struct socle_ioc_stats request = {.handle = handle};

    if (table->count == MAX_VCPUS || ioctl(device, SOCLE_IOC_STATS, &request)) {
        return; /* a domain may end meanwhile */
    }
    row->domain = d->id;
    row->handle = handle;
    memcpy(row->name, d->name, sizeof(d->name));
    row->name[16] = 0;
    row->now = request.stats;
    memset(&row->before, 0, sizeof(row->before));
    table->count++;
}

static void add_domain(const struct socle_domain_info *d, void *context)
{
    for (u32 i = 0; i < d->vcpus && i < 16; i++) {
        add_vcpu(context, d, d->vcpu_handle[i]);
    }
}

static void find_before(struct table *now, const struct table *before)
{
    for (int i = 0; i < now->count; i++) {
        struct row *row = &now->row[i];

        for (int j = 0; j < before->count; j++) {
            if (before->row[j].handle == row->handle && before->row[j].domain == row->domain &&
                before->row[j].now.count[SOCLE_STAT_EXITS] <= row->now.count[SOCLE_STAT_EXITS]) {
                row->before = before->row[j].now;
            }
        }
    }
}

/* Rates where seconds is not 0, else totals */
static void print_table(const struct table *table, double seconds)
{
    printf("%4s %-16s %4s %3s %-8s %9s", "DOM", "NAME", "VCPU", "CPU", "STATE",
           seconds > 0 ? "CPU %" : "CPU s");
    for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++) {
        printf(" %8s", columns[c].title);
    }
    putchar('\n');
    for (int i = 0; i < table->count; i++) {
        const struct row *row = &table->row[i];
        double cpu = (double)(row->now.cpu_ns - row->before.cpu_ns) / 1e9;

        printf("%4u %-16s %4u %3u %-8s %9.2f", row->domain, row->name, row->now.apic_id,
               row->now.cpu, state_name(row->now.state), seconds > 0 ? cpu * 100 / seconds : cpu);
        for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++) {
            u64 count = row->now.count[columns[c].stat] - row->before.count[columns[c].stat];

            printf(" %8.0f", seconds > 0 ? (double)count / seconds : (double)count);
        }
        putchar('\n');
    }
}

static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < 0x20 || c >= 0x7f) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static void print_json(const struct table *table)
{
    printf("{\"vcpus\": [");
    for (int i = 0; i < table->count; i++) {
        const struct row *row = &table->row[i];

        printf("%s\n  {\"domain\": %u, \"name\": ", i ? "," : "", row->domain);
        print_json_string(row->name);
        printf(", \"handle\": %u, \"apic_id\": %u, \"cpu\": %u, \"state\": \"%s\", "
               "\"cpu_ns\": %" PRIu64,
               row->handle, row->now.apic_id, row->now.cpu, state_name(row->now.state),
               row->now.cpu_ns);
        for (int s = 0; s < SOCLE_STATS; s++) {
            printf(", \"%s\": %" PRIu64, stat_names[s], row->now.count[s]);
        }
        putchar('}');
    }
    printf("\n]}\n");
    fflush(stdout);
}

static double now_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* One key at a time while the screen is refreshed */
static struct termios old_terminal;

static void restore_terminal(void)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &old_terminal);
}

static void raw_terminal(void)
{
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &old_terminal)) {
        return;
    }
    atexit(restore_terminal);
    raw = old_terminal;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

/* True when the user wants to stop */
static bool wait_for_key(double seconds)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char key;

    if (poll(&input, 1, (int)(seconds * 1000)) <= 0) {
        return false;
    }
    return read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q';
}

static void refresh(double delay, bool json)
{
    static struct table tables[2];
    double last = now_seconds();
    int n = 0;

    raw_terminal();
    for_each_domain(add_domain, &tables[0]);
    while (!wait_for_key(delay)) {
        struct table *now = &tables[n ^ 1];
        double time = now_seconds();

        now->count = 0;
        for_each_domain(add_domain, now);
        find_before(now, &tables[n]);
        if (json) {
            print_json(now);
        } else {
            printf("\033[H\033[J%s\n\n", "Socle: exits per second; q quits");
            print_table(now, time - last);
            fflush(stdout);
        }
        last = time;
        n ^= 1;
    }
}

static int command_stat(int argc, char **argv)
{
    static struct table table;
    bool json = false, once = !isatty(STDOUT_FILENO);
    double delay = 1;

    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            json = true;
        } else if (!strcmp(argv[i], "--once")) {
            once = true;
        } else if (!strcmp(argv[i], "--delay") && i + 1 < argc) {
            delay = strtod(argv[++i], NULL);
        } else {
            die("stat: unknown option %s (soclectl --help)", argv[i]);
        }
    }
    if (delay < 0.1 || delay > 3600) {
        die("stat: --delay takes 0.1 to 3600 seconds");
    }
    if (!once) {
        refresh(delay, json);
        return 0;
    }
    for_each_domain(add_domain, &table);
    if (json) {
        print_json(&table);
    } else {
        print_table(&table, 0);
    }
    return 0;
}

/* ---- log ----------------------------------------------------------------------------------------
 */

static int command_log(int argc, char **argv)
{
    static struct socle_ioc_log request;
    bool follow = false;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-f") && strcmp(argv[i], "--follow")) {
            die("log: unknown option %s (soclectl --help)", argv[i]);
        }
        follow = true;
    }
    for (;;) {
        ask(SOCLE_IOC_LOG, &request, "its log");
        if (request.chunk.bytes > sizeof(request.chunk.text)) {
            die("Socle gave a damaged piece of its log");
        }
        fwrite(request.chunk.text, 1, request.chunk.bytes, stdout);
        request.position = request.chunk.next;
        if (request.chunk.bytes) {
            continue;
        }
        fflush(stdout);
        if (!follow) {
            return ferror(stdout) ? 1 : 0;
        }
        usleep(200000);
    }
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";

    if (!strcmp(command, "--help") || !strcmp(command, "-h") || !strcmp(command, "help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (!strcmp(command, "info") && argc == 2) {
        open_device();
        return command_info();
    }
    if (!strcmp(command, "list") && argc == 2) {
        open_device();
        return command_list();
    }
    if (!strcmp(command, "stat")) {
        open_device();
        return command_stat(argc - 2, argv + 2);
    }
    if (!strcmp(command, "log")) {
        open_device();
        return command_log(argc - 2, argv + 2);
    }
    if (*command) {
        fprintf(stderr, "soclectl: unknown command: %s\n", command);
    }
    fputs(usage, stderr);
    return 2;
}
