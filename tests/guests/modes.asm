; SPDX-License-Identifier: BSD-2-Clause
; u32 run_modes(u32 vendor): leaves long mode, goes through the others, and comes back. In all of it:
; ESI = EBX of CPUID leaf 0, EDI = a bit for each mode that was in order, EBP = timer interrupts taken.

extern page_directories, enter_long_mode, gdt_pointer, idt_pointer
global run_modes

REAL    equ 0x8000                      ; where the real-mode part is copied to
%define real_mode(label) (REAL + (label) - real_start)

; IN: the mode's number. A one-shot of the PIT wakes the HLT, and its handler counts EBP.
%macro MODE_CHECKS 1
        xor     eax, eax
        cpuid
        cmp     ebx, esi
        jne     %%wrong
        mov     dx, 0xcf8
        mov     eax, 0x80000000 + %1 * 0x100
        out     dx, eax
        xor     eax, eax
        in      eax, dx
        cmp     eax, 0x80000000 + %1 * 0x100
        jne     %%wrong
        in      al, 0x21
        cmp     al, 0xfe
        jne     %%wrong
        mov     al, 0x30                ; channel 0, mode 0
        out     0x43, al
        xor     eax, eax
        out     0x40, al
        mov     al, 4
        out     0x40, al
        sti
        hlt
        cli
        cmp     ebp, %1 + 1
        jne     %%wrong
        or      edi, 1 << %1
%%wrong:
        mov     ebp, %1 + 1
%endmacro

%macro TIMER_HANDLER 0
        push    ax
        mov     al, 0x20
        out     0x20, al
        pop     ax
        inc     ebp
%endmacro

section .text
bits 64
run_modes:
        push    rbx
        push    rbp
        mov     [saved_rsp], rsp
        mov     esi, edi
        xor     edi, edi
        xor     ebp, ebp
        jmp     dword far [to_compatibility]

bits 32
compatibility:
        mov     eax, cr0                ; paging off: long mode ends
        and     eax, 0x7fffffff
        mov     cr0, eax
        mov     ecx, 0xc0000080
        rdmsr
        and     eax, ~0x100
        wrmsr
        mov     eax, handler_32
        mov     [idt_32 + 0x20 * 8], ax
        shr     eax, 16
        mov     [idt_32 + 0x20 * 8 + 6], ax
        lidt    [idt_32_pointer]
        MODE_CHECKS 0

        mov     eax, cr4                ; 4 MiB pages, PSE without PAE
        and     eax, ~0x20
        or      eax, 0x10
        mov     cr4, eax
        mov     eax, 0x83
        xor     ecx, ecx
.leaf:
        mov     [tables + ecx * 4], eax
        add     eax, 0x400000
        inc     ecx
        cmp     ecx, 1024
        jb      .leaf
        mov     eax, tables
        call    paging_on
        MODE_CHECKS 1
        call    paging_off

        mov     eax, cr4
        or      eax, 0x20
        mov     cr4, eax
        mov     eax, page_directories + 1       ; pointers of the PAE kind have no rights
        xor     ecx, ecx
.pointer:
        mov     [tables + ecx * 8], eax
        mov     dword [tables + ecx * 8 + 4], 0
        add     eax, 4096
        inc     ecx
        cmp     ecx, 4
        jb      .pointer
        mov     eax, tables
        call    paging_on
        MODE_CHECKS 2
        call    paging_off

        push    esi                     ; the part that runs below 1 MiB
        push    edi
        mov     esi, real_start
        mov     edi, REAL
        mov     ecx, real_end - real_start
        rep movsb
        pop     edi
        pop     esi
        mov     word [0x20 * 4], real_mode(handler_16)
        mov     word [0x20 * 4 + 2], 0
        lidt    [idt_16_pointer]
        mov     eax, 0x48
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        jmp     0x40:real_mode(leave_protected)
after_real:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, [saved_rsp]
        call    enter_long_mode
        jmp     0x08:long_again

bits 64
long_again:
        mov     rsp, [saved_rsp]
        mov     eax, handler_64
        mov     [idt_64 + 0x20 * 16], ax
        shr     eax, 16
        mov     [idt_64 + 0x20 * 16 + 6], ax
        lidt    [idt_64_pointer]
        MODE_CHECKS 4
        lidt    [idt_pointer]
        mov     eax, edi
        pop     rbp
        pop     rbx
        ret

bits 32
paging_on:
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax
        ret
paging_off:
        mov     eax, cr0
        and     eax, 0x7fffffff
        mov     cr0, eax
        ret

handler_32:
        TIMER_HANDLER
        iretd
bits 64
handler_64:
        push    rax
        mov     al, 0x20
        out     0x20, al
        pop     rax
        inc     ebp
        iretq

bits 16
real_start:
leave_protected:
        mov     eax, cr0
        and     al, 0xfe
        mov     cr0, eax
        jmp     0:real_mode(.real)
.real:
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, REAL - 0x400
        MODE_CHECKS 3
        o32 lgdt [real_mode(.gdt)]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x18:after_real
.gdt:
        dw      0x4f
        dd      gdt
extern gdt
handler_16:
        TIMER_HANDLER
        iret
real_end:

section .data
align 8
to_compatibility:
        dd      compatibility
        dw      0x18
saved_rsp:      dq 0
idt_32_pointer: dw 0x21 * 8 - 1
                dd idt_32
idt_16_pointer: dw 0x3ff
                dd 0
idt_64_pointer: dw 0x21 * 16 - 1
                dq idt_64
align 16
idt_32: times 0x20 dq 0
        dq      0x00008e0000180000
idt_64: times 0x20 dq 0, 0
        dq      0x00008e0000080000, 0

section .bss
alignb 4096
tables: resb 4096
