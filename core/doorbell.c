/* SPDX-License-Identifier: BSD-2-Clause */
/* Doorbells: a hash table by address, chained by index. */
#include "core/doorbell.h"
#include "core/abi.h"
#include "core/domain.h"
#include "core/errno.h"
#include "core/event.h"
#include "core/pool.h"

#define HEADS     256
#define PER_PAGE  128
#define PAGES     16
#define NONE      0xffff
#define FLAG_MASK (SOCLE_DOORBELL_PIO | SOCLE_DOORBELL_MATCH)

struct doorbell {
    u64 addr;
    u64 data;
    u32 port;
    u16 flags; /* SOCLE_DOORBELL_* and the length in the low byte */
    u16 next;
    u64 reserved;
};
_Static_assert(sizeof(struct doorbell) * PER_PAGE == PAGE_SIZE, "doorbells fill pages");

struct doorbell_table {
    struct spinlock lock;
    u16 count;
    u16 free; /* chain of removed entries */
    u16 used; /* entries ever used */
    u16 head[HEADS];
    struct doorbell *page[PAGES];
};
_Static_assert(sizeof(struct doorbell_table) <= PAGE_SIZE, "the table is one page");

static struct doorbell *entry(struct doorbell_table *t, u16 i)
{
    return &t->page[i / PER_PAGE][i % PER_PAGE];
}

static u32 hash(u64 addr)
{
    return (u32)((addr * 0x9e3779b97f4a7c15ull) >> 56);
}

static bool matches(const struct doorbell *b, u64 addr, u8 len, u64 data, bool pio)
{
    u8 wanted = (u8)b->flags;

    if (b->addr != addr || !!(b->flags & SOCLE_DOORBELL_PIO) != pio)
        return false;
    if (wanted && wanted != len)
        return false;
    return !(b->flags & SOCLE_DOORBELL_MATCH) || b->data == data;
}

bool doorbell_ring(struct domain *d, u64 addr, u8 len, u64 data, bool pio)
{
    struct doorbell_table *t = __atomic_load_n(&d->doorbells, __ATOMIC_ACQUIRE);
    u32 port = ~0u;

    if (!t || t->head[hash(addr)] == NONE)
        return false;
    spin_lock(&t->lock);
    for (u16 i = t->head[hash(addr)]; i != NONE && port == ~0u; i = entry(t, i)->next)
        if (matches(entry(t, i), addr, len, data, pio))
            port = entry(t, i)->port;
    spin_unlock(&t->lock);
    if (port == ~0u)
        return false;
    event_raise(port);
    return true;
}

static bool same(const struct doorbell *a, const struct doorbell *b)
{
    return a->addr == b->addr && a->flags == b->flags && a->data == b->data;
}

/* The link that leads to an equal entry, or NULL. */
static u16 *find_link(struct doorbell_table *t, const struct doorbell *b)
{
    for (u16 *link = &t->head[hash(b->addr)]; *link != NONE; link = &entry(t, *link)->next)
        if (same(entry(t, *link), b))
            return link;
    return NULL;
}

static int parse(struct doorbell *b, u64 addr, u64 info, u64 data)
{
    u8 len = (u8)info;
    u16 flags = (u16)(info & 0xff00);

    if ((flags & ~FLAG_MASK) || info >> 16 >= SOCLE_EVENT_PORTS)
        return -E_INVAL;
    if (len > 8 || (len & (len - 1)) || ((flags & SOCLE_DOORBELL_MATCH) && !len))
        return -E_INVAL;
    *b = (struct doorbell){.addr = addr,
                           .data = flags & SOCLE_DOORBELL_MATCH ? data : 0,
                           .port = (u32)(info >> 16),
                           .flags = (u16)(flags | len)};
    return 0;
}

/* An unused entry, or NONE with the cause in *err. Under the lock. */
static u16 take_entry(struct domain *d, struct doorbell_table *t, int *err)
{
    u16 i = t->free;

    if (i != NONE) {
        t->free = entry(t, i)->next;
        return i;
    }
    *err = -E_NOSPC;
    if (t->used == PAGES * PER_PAGE)
        return NONE;
    *err = -E_NOMEM;
    if (!t->page[t->used / PER_PAGE])
        t->page[t->used / PER_PAGE] = pool_alloc(&d->charge);
    return t->page[t->used / PER_PAGE] ? t->used++ : NONE;
}

static int insert(struct domain *d, struct doorbell_table *t, const struct doorbell *b)
{
    int err = -E_EXIST;
    u16 i;

    if (find_link(t, b))
        return err;
    i = take_entry(d, t, &err);
    if (i == NONE)
        return err;
    *entry(t, i) = *b;
    entry(t, i)->next = t->head[hash(b->addr)];
    t->head[hash(b->addr)] = i;
    t->count++;
    return 0;
}

static struct doorbell_table *table_of(struct domain *d)
{
    struct doorbell_table *t;

    spin_lock(&d->lock);
    t = d->doorbells;
    if (!t && (t = pool_alloc(&d->charge))) {
        for (u32 i = 0; i < HEADS; i++)
            t->head[i] = NONE;
        t->free = NONE;
        __atomic_store_n(&d->doorbells, t, __ATOMIC_RELEASE);
    }
    spin_unlock(&d->lock);
    return t;
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
    struct doorbell b;
    u16 *link, i;
    int err = parse(&b, addr, info, data);

    if (err || !t)
        return err ? err : -E_NOENT;
    spin_lock(&t->lock);
    link = find_link(t, &b);
    if (link) {
        i = *link;
        *link = entry(t, i)->next;
        entry(t, i)->next = t->free;
        t->free = i;
        t->count--;
    }
    spin_unlock(&t->lock);
    return link ? 0 : -E_NOENT;
}

void doorbell_free_all(struct domain *d)
{
    struct doorbell_table *t = d->doorbells;

    if (!t)
        return;
    for (u32 i = 0; i < PAGES; i++)
        if (t->page[i])
            pool_free(t->page[i], &d->charge);
    d->doorbells = NULL;
    pool_free(t, &d->charge);
}
