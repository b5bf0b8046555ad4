/* SPDX-License-Identifier: BSD-2-Clause */
/* Socle's own address space. */
#include "core/paging.h"
#include "core/lib.h"
#include "core/panic.h"
#include "core/pcpu.h"
#include "core/pool.h"
#include "core/x86.h"

#define LAPIC_BASE  0xffffff4000000000ull
#define STACK_BASE  0xffffff6000000000ull
#define SHARED_BASE 0xffffff8000000000ull

#define RW_DATA (PTE_P | PTE_W | PTE_A | PTE_D | PTE_NX)

extern char text_start[], text_end[], rodata_start[], rodata_end[], data_start[], data_end[];

static u64 *root;

static void set_pte(u64 *pte, u64 value)
{
    __atomic_store_n(pte, value, __ATOMIC_RELEASE);
}

/* The entry for va at `level` (0: 4 KiB), tables made on the way. */
static u64 *walk(u64 va, int level)
{
    u64 *table = root;

    for (int l = 3; l > level; l--) {
        u64 *pte = &table[va >> (PAGE_SHIFT + 9 * l) & 511];

        if (!*pte) {
            void *page = pool_alloc(NULL);

            if (!page)
                panic("no memory for Socle's page tables");
            set_pte(pte, virt_to_phys(page) | PTE_P | PTE_W);
        }
        table = phys_to_virt(*pte & PTE_PA);
    }
    return &table[va >> (PAGE_SHIFT + 9 * level) & 511];
}

static void map_image(const char *start, const char *end, u64 flags)
{
    for (const char *va = start; va < end; va += PAGE_SIZE)
        set_pte(walk((u64)va, 0), image_to_phys(va) | flags | PTE_G);
}

void paging_init(paddr_t heap, u64 size)
{
    root = pool_alloc(NULL);
    if (!root)
        panic("no memory for Socle's page tables");
    map_image(text_start, text_end, PTE_P | PTE_A);
    map_image(rodata_start, rodata_end, PTE_P | PTE_A | PTE_NX);
    map_image(data_start, data_end, RW_DATA);
    for (paddr_t pa = heap; pa < heap + size; pa += SIZE_2M)
        set_pte(walk(DIRECT_BASE + pa, 1), pa | RW_DATA | PTE_PS | PTE_G);
    /* Slots that are filled later, by any processor: their tables exist from the start. */
    for (u32 i = 0; i < PAGING_SHARED_SLOTS; i += 512)
        walk(SHARED_BASE + i * PAGE_SIZE, 0);
    write_cr4(read_cr4() | CR4_PGE);
    write_cr3(virt_to_phys(root));
}

volatile void *paging_map_lapic(void)
{
    set_pte(walk(LAPIC_BASE, 0), APIC_DEFAULT_PA | RW_DATA | PTE_PCD | PTE_PWT);
    return (volatile void *)LAPIC_BASE;
}

static bool map_pool_page(u64 va)
{
    void *page = pool_alloc(NULL);

    if (page)
        set_pte(walk(va, 0), virt_to_phys(page) | RW_DATA | PTE_G);
    return page != NULL;
}

void *paging_map_stack(u32 cpu, struct pcpu **pcpu)
{
    u64 slot = STACK_BASE + (u64)cpu * PCPU_SLOT_SIZE;
    u64 top = slot + PCPU_SLOT_SIZE;

    for (u64 va = slot; va < top; va += PAGE_SIZE)
        if ((va < slot + PCPU_SIZE || va >= top - STACK_SIZE) && !map_pool_page(va))
            return NULL;
    for (u32 i = 0; i < WINDOWS; i++)
        walk(WINDOW_BASE + (cpu * (u64)WINDOWS + i) * PAGE_SIZE, 0);
    *pcpu = (void *)slot;
    (*pcpu)->buffer = pool_alloc(NULL);
    return (*pcpu)->buffer ? (void *)top : NULL;
}

void *paging_map_shared(u32 index, paddr_t pa)
{
    u64 va = SHARED_BASE + (u64)index * PAGE_SIZE;

    ASSERT(index < PAGING_SHARED_SLOTS);
    set_pte(walk(va, 0), pa | RW_DATA);
    return (void *)va;
}

void paging_unmap_shared(u32 index)
{
    u64 va = SHARED_BASE + (u64)index * PAGE_SIZE;

    set_pte(walk(va, 0), 0);
    pcpu_flush_host((void *)va);
}

void *window_map(unsigned int slot, paddr_t pa)
{
    struct pcpu *cpu = this_cpu();
    struct window *w = &cpu->window[slot];

    if (!w->pte) {
        w->va = WINDOW_BASE + (cpu->id * (u64)WINDOWS + slot) * PAGE_SIZE;
        w->pte = walk(w->va, 0);
    }
    if (w->pa != (pa & PAGE_MASK) || !*w->pte) {
        w->pa = pa & PAGE_MASK;
        set_pte(w->pte, w->pa | RW_DATA);
        invlpg((void *)w->va);
    }
    return (void *)(w->va + (pa & ~PAGE_MASK));
}

void window_unmap(unsigned int slot)
{
    struct window *w = &this_cpu()->window[slot];

    if (w->pte && *w->pte) {
        set_pte(w->pte, 0);
        invlpg((void *)w->va);
    }
}

void phys_read(void *dst, paddr_t src, size_t len)
{
    for (size_t done = 0, n; done < len; done += n) {
        n = MIN(len - done, PAGE_LEFT(src + done));
        memcpy((char *)dst + done, window_map(WINDOW_COPY, src + done), n);
    }
    window_unmap(WINDOW_COPY);
}

void phys_write(paddr_t dst, const void *src, size_t len)
{
    for (size_t done = 0, n; done < len; done += n) {
        n = MIN(len - done, PAGE_LEFT(dst + done));
        memcpy(window_map(WINDOW_COPY, dst + done), (const char *)src + done, n);
    }
    window_unmap(WINDOW_COPY);
}
