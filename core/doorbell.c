/* SPDX-License-Identifier: BSD-2-Clause */
/* Doorbells: a hash table by address. */
#include "core/doorbell.h"
#include "core/domain.h"
#include "core/event.h"

#define HEADS    256
#define PER_PAGE 128
#define PAGES    16

struct doorbell {
    u64 addr;
    u64 data;
    u32 port;
    u16 flags; /* SOCLE_DOORBELL_* and the length in the low byte */
    struct doorbell *next;
};
_Static_assert(sizeof(struct doorbell) * PER_PAGE == PAGE_SIZE, "doorbells fill pages");

struct doorbell_table {
    struct spinlock lock;
    u32 pages;
    struct doorbell *free;
    struct doorbell *head[HEADS];
    struct doorbell *page[PAGES];
};
_Static_assert(sizeof(struct doorbell_table) <= PAGE_SIZE, "the table is one page");

static u32 hash(u64 addr)
{
    return (u32)((addr * 0x9e3779b97f4a7c15ull) >> 56);
}

static bool matches(const struct doorbell *b, u64 addr, u8 len, u64 data, bool pio)
{
    u8 wanted = (u8)b->flags;

    return b->addr == addr && !!(b->flags & SOCLE_DOORBELL_PIO) == pio &&
           (!wanted || wanted == len) && (!(b->flags & SOCLE_DOORBELL_MATCH) || b->data == data);
}

bool doorbell_ring(struct domain *d, u64 addr, u8 len, u64 data, bool pio)
{
    struct doorbell_table *t = __atomic_load_n(&d->doorbells, __ATOMIC_ACQUIRE);
    const struct doorbell *b;
    u32 port = 0;

    if (!t || !t->head[hash(addr)])
        return false;
    spin_lock(&t->lock);
    for (b = t->head[hash(addr)]; b && !matches(b, addr, len, data, pio); b = b->next)
        ;
    if (b)
        port = b->port;
    spin_unlock(&t->lock);
    if (b)
        event_raise(port);
    return b;
}

/* The link that leads to an entry for the same writes, or to the end of its chain. */
static struct doorbell **find_link(struct doorbell_table *t, const struct doorbell *b)
{
    struct doorbell **link = &t->head[hash(b->addr)];
    const struct doorbell *e;

    while ((e = *link) && (e->addr != b->addr || e->flags != b->flags || e->data != b->data))
        link = &(*link)->next;
    return link;
}

static int parse(struct doorbell *b, u64 addr, u64 info, u64 data)
{
    u8 len = (u8)info;
    u16 flags = (u16)(info & 0xff00);

    if ((flags & ~(SOCLE_DOORBELL_PIO | SOCLE_DOORBELL_MATCH)) || info >> 16 >= SOCLE_EVENT_PORTS)
        return -E_INVAL;
    if (len > 8 || (len & (len - 1)) || ((flags & SOCLE_DOORBELL_MATCH) && !len))
        return -E_INVAL;
    *b = (struct doorbell){.addr = addr,
                           .data = flags & SOCLE_DOORBELL_MATCH ? data : 0,
                           .port = (u32)(info >> 16),
                           .flags = (u16)(flags | len)};
    return 0;
}

/* More unused entries. Under the lock. */
static int add_page(struct domain *d, struct doorbell_table *t)
{
    struct doorbell *page;

    if (t->pages == PAGES)
        return -E_NOSPC;
    page = pool_alloc(&d->charge);
    if (!page)
        return -E_NOMEM;
    t->page[t->pages++] = page;
    for (u32 i = 0; i < PER_PAGE; i++) {
        page[i].next = t->free;
        t->free = &page[i];
    }
    return 0;
}

static int insert(struct domain *d, struct doorbell_table *t, const struct doorbell *b)
{
    struct doorbell **end = find_link(t, b), *entry;
    int err = t->free ? 0 : add_page(d, t);

    if (*end)
        return -E_EXIST;
    if (err)
        return err;
    entry = t->free;
    t->free = entry->next;
    *entry = *b;
    *end = entry;
    return 0;
}

static struct doorbell_table *table_of(struct domain *d)
{
    spin_lock(&d->lock);
    if (!d->doorbells)
        __atomic_store_n(&d->doorbells, pool_alloc(&d->charge), __ATOMIC_RELEASE);
    spin_unlock(&d->lock);
    return d->doorbells;
}

int doorbell_add(struct domain *d, u64 addr, u64 info, u64 data)
{
    struct doorbell_table *t;
    struct doorbell b;
    int err = parse(&b, addr, info, data);

    if (err)
        return err;
    t = table_of(d);
    if (!t)
        return -E_NOMEM;
    spin_lock(&t->lock);
    err = insert(d, t, &b);
    spin_unlock(&t->lock);
    return err;
}

int doorbell_remove(struct domain *d, u64 addr, u64 info, u64 data)
{
    struct doorbell_table *t = d->doorbells;
    struct doorbell b, **link, *entry;
    int err = parse(&b, addr, info, data);

    if (err || !t)
        return err ? err : -E_NOENT;
    spin_lock(&t->lock);
    link = find_link(t, &b);
    entry = *link;
    if (entry) {
        *link = entry->next;
        entry->next = t->free;
        t->free = entry;
    }
    spin_unlock(&t->lock);
    return entry ? 0 : -E_NOENT;
}

void doorbell_free_all(struct domain *d)
{
    struct doorbell_table *t = d->doorbells;

    if (!t)
        return;
    while (t->pages)
        pool_free(t->page[--t->pages], &d->charge);
    d->doorbells = NULL;
    pool_free(t, &d->charge);
}
