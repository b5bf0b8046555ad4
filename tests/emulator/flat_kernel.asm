; SPDX-License-Identifier: BSD-2-Clause
; Stands before an uncompressed kernel (flat_kernel.py): from Linux/x86's 32-bit entry, at any address, to
; the kernel's own 64-bit entry, KERNEL behind. ESI has the boot parameters; the first 4 GiB are mapped.
; KERNEL (from the command line) makes up for what is missing to a multiple of 2 MiB.

TABLES  equ 0x1000      ; PML4, PDPT, four page directories
STACK   equ 0x8000

bits 32
start:
        cld
        lea     esp, [esi + 0x1e8]      ; the parameters' scratch field
        call    .here
.here:
        pop     ebp
        sub     ebp, .here - start
        lea     esp, [ebp + STACK]

        lea     edi, [ebp + TABLES]
        lea     eax, [edi + 0x1003]
        mov     [edi], eax
        xor     ecx, ecx
.directories:
        add     eax, 0x1000
        mov     [edi + 0x1000 + 8 * ecx], eax
        inc     ecx
        cmp     ecx, 4
        jne     .directories
        lea     edx, [edi + 0x2000]
        mov     eax, 0x83               ; present, writable, 2 MiB
.pages:
        mov     [edx], eax
        add     edx, 8
        add     eax, 0x200000
        jnc     .pages

        mov     cr3, edi
        mov     eax, cr4
        or      eax, 1 << 5             ; PAE
        mov     cr4, eax
        mov     ecx, 0xc0000080         ; EFER.LME
        rdmsr
        or      eax, 1 << 8
        wrmsr
        lea     eax, [ebp + gdt]
        mov     [ebp + gdtr + 2], eax
        lgdt    [ebp + gdtr]
        lea     eax, [ebp + KERNEL]
        push    0x10
        push    eax
        mov     eax, cr0
        or      eax, 1 << 31
        mov     cr0, eax
        retf

align 8
gdt:    dq      0, 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr:   dw      gdtr - gdt - 1
        dd      0
