; SPDX-License-Identifier: BSD-2-Clause
; u32 run_tasks(void): leaves long mode for 32-bit paging, and switches tasks in every way. In the main task EDI has a
; bit for each that was in order. A task counts what it finds in order in `seen`; `asked` is what it shall find in NT
; and the back link.

extern enter_long_mode, gdt, gdt_pointer, idt_pointer
global run_tasks

CODE    equ 0x08
DATA    equ 0x10
MAIN    equ 0x18
OTHER   equ 0x20
DOUBLE  equ 0x28
FAULTY  equ 0x30
LDT     equ 0x38
GATE    equ 0x40
STACK   equ 1024
BAD     equ 0x7f8

%macro WANT 2+                          ; seen += 1 if the comparison says so
        %2
        j%-1    %%wrong
        inc     dword [seen]
%%wrong:
%endmacro

; A 32-bit TSS: its CR3, EIP, stack's top, DS
%macro TSS_32 4
        dd      0, 0, 0, 0, 0, 0, 0, %1, %2, 2, 0x11, 0x22, 0x33, 0x44, %3, 0x55, 0x66, 0x77
        dd      DATA, CODE, DATA, %4, 0, 0, LDT, 0x680000
%endmacro

%macro SET_BASE 2
        mov     eax, %2
        mov     [gdt_32 + %1 + 2], ax
        shr     eax, 16
        mov     [gdt_32 + %1 + 4], al
        mov     [gdt_32 + %1 + 7], ah
%endmacro

%macro SET_GATE 2
        mov     eax, %2
        mov     [idt_32 + %1 * 8], ax
        shr     eax, 16
        mov     [idt_32 + %1 * 8 + 6], ax
%endmacro

section .text
bits 64
run_tasks:
        push    rbx
        push    rbp
        mov     [saved_rsp], rsp
        jmp     dword far [to_compatibility]

bits 32
compatibility:
        mov     eax, cr0
        and     eax, 0x7fffffff
        mov     cr0, eax
        mov     ecx, 0xc0000080
        rdmsr
        and     eax, ~0x100
        wrmsr
        mov     eax, cr4                ; 4 MiB pages, PSE without PAE
        and     eax, ~0x20
        or      eax, 0x10
        mov     cr4, eax
        mov     eax, 0x83
        xor     ecx, ecx
.leaf:
        mov     [tables + ecx * 4], eax
        mov     [tables + 4096 + ecx * 4], eax
        add     eax, 0x400000
        inc     ecx
        cmp     ecx, 1024
        jb      .leaf
        SET_BASE MAIN, tss_main
        SET_BASE OTHER, tss_other
        SET_BASE DOUBLE, tss_double
        SET_BASE FAULTY, tss_faulty
        SET_BASE LDT, ldt
        SET_GATE 10, invalid_tss
        lgdt    [gdt_32_pointer]
        lidt    [idt_32_pointer]
        jmp     CODE:.flat
.flat:
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     eax, tables
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax
        mov     eax, MAIN
        ltr     ax
        xor     edi, edi

; 0: there by JMP, back by JMP. The other task starts at its beginning.
        mov     ebx, 0x12345678
        clts
        call    expect_nothing
        jmp     OTHER:0
        WANT e, cmp ebx, 0x12345678
        WANT e, cmp dword [tss_other + 0x20], other_resumed
        WANT e, test byte [gdt_32 + OTHER + 5], 2
        WANT ne, test byte [gdt_32 + MAIN + 5], 2
        call    main_state
        cmp     dword [seen], 16
        jne     .not_0
        or      edi, 1
.not_0:
; 1: by CALL, where it left off; back by IRET
        call    expect_nested
        call    OTHER:0
        WANT e, cmp ebx, 0x12345678
        WANT e, cmp dword [tss_other + 0x20], other_again
        WANT e, test byte [gdt_32 + OTHER + 5], 2
        call    main_state
        cmp     dword [seen], 11
        jne     .not_1
        or      edi, 2
.not_1:
; 2: by INT through a task gate, and through the gate in the GDT by JMP
        call    expect_nested
        int     0x40
.after_int:
        WANT e, cmp dword [tss_main + 0x20], .after_int
        call    main_state
        mov     dword [asked], 0
        mov     dword [tss_other + 0x20], other_task
        mov     dword [tss_other + 0x24], 2
        mov     dword [tss_other + 0x28], 0x11
        jmp     GATE:0
        call    main_state
        cmp     dword [seen], 20
        jne     .not_2
        or      edi, 4
.not_2:
; 3: no gate for INT 0x41, nor for the fault which that is
        mov     dword [seen], 0
        mov     dword [double_return], .after_double
.double:
        int     0x41
        jmp     .not_3
.after_double:
        WANT e, cmp dword [double_eip], .double
        call    main_state
        cmp     dword [seen], 10
        jne     .not_3
        or      edi, 8
.not_3:
; 4: #TS in the new task
        mov     dword [seen], 0
        jmp     FAULTY:0
        call    main_state
        cmp     dword [seen], 6
        jne     .not_4
        or      edi, 16
.not_4:
; 5: the timer's interrupt, by a task gate
        call    expect_nested
        mov     dword [tss_other + 0x20], timer_task
        mov     al, 0x30
        out     0x43, al
        xor     eax, eax
        out     0x40, al
        mov     al, 4
        out     0x40, al
        sti
        hlt
.after_hlt:
        cli
        WANT e, cmp dword [tss_main + 0x20], .after_hlt
        WANT ne, test dword [tss_main + 0x24], 0x200
        call    main_state
        cmp     dword [seen], 7
        jne     .not_5
        or      edi, 32
.not_5:
        mov     eax, cr0
        and     eax, 0x7fffffff
        mov     cr0, eax
        lgdt    [gdt_pointer]
        jmp     0x18:.back
.back:
        mov     esp, [saved_rsp]
        call    enter_long_mode
        jmp     0x08:long_again

bits 64
long_again:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     rsp, [saved_rsp]
        lidt    [idt_pointer]
        mov     eax, edi
        pop     rbp
        pop     rbx
        ret

bits 32
expect_nothing:
        mov     dword [seen], 0
        mov     dword [asked], 0
        ret
expect_nested:
        mov     dword [seen], 0
        mov     dword [asked], 0x4000
        ret

; The main task is back: 4 things
main_state:
        str     ax
        WANT e, cmp ax, MAIN
        pushfd
        pop     eax
        WANT e, test eax, 0x4000
        mov     eax, cr3
        WANT e, cmp eax, tables
        mov     eax, cr0
        WANT ne, test al, 8
        ret

; The other task is as it should be: 3 things
other_state:
        pushfd
        pop     eax
        and     eax, 0x4000
        WANT e, cmp eax, [asked]
        mov     eax, cr3
        WANT e, cmp eax, tables + 4096
        str     ax
        WANT e, cmp ax, OTHER
        ret

other_task:
        WANT e, cmp eax, 0x11
        WANT e, cmp edx, 0x33
        WANT e, cmp edi, 0x77
        WANT e, cmp esp, other_stack
        sldt    ax
        WANT e, cmp ax, LDT
        call    other_state
        jmp     MAIN:0
other_resumed:
        WANT e, cmp word [tss_other], MAIN
        call    other_state
        iretd
other_again:
        call    other_state
        iretd
        jmp     other_again

timer_task:                             ; once: the firmware's last tick may come ahead of ours
        mov     al, 0xff
        out     0x21, al
        mov     al, 0x20
        out     0x20, al
        WANT e, cmp word [tss_other], MAIN
        iretd

double_task:
        WANT e, cmp esp, double_stack - 4
        pop     eax
        WANT e, test eax, eax
        WANT e, cmp word [tss_double], MAIN
        pushfd
        pop     eax
        WANT ne, test eax, 0x4000
        str     ax
        WANT e, cmp ax, DOUBLE
        mov     eax, [tss_main + 0x20]
        mov     [double_eip], eax
        mov     eax, [double_return]
        mov     [tss_main + 0x20], eax
        iretd
        jmp     double_task

; In FAULTY, whose DS is not to be had. QEMU's TCG pushes another EIP than the task's.
invalid_tss:
        mov     eax, DATA
        mov     ds, eax
        WANT e, cmp dword [esp], BAD
        str     ax
        WANT e, cmp ax, FAULTY
        jmp     MAIN:0
faulty_task:
        jmp     faulty_task

section .data
align 8
to_compatibility:
        dd      compatibility
        dw      0x18
align 8
gdt_32: dq      0
        dq      0x00cf9b000000ffff
        dq      0x00cf93000000ffff
        times 4 dq 0x0000890000000067
        dq      0x000082000000000f
        dq      OTHER << 16 | 0x850000000000
gdt_32_end:
gdt_32_pointer:
        dw      gdt_32_end - gdt_32 - 1
        dd      gdt_32
idt_32: times 8 dq 0
        dq      DOUBLE << 16 | 0x850000000000
        dq      0
        dq      CODE << 16 | 0x8e0000000000
        times 0x20 - 11 dq 0
        dq      OTHER << 16 | 0x850000000000
        times 0x1f dq 0
        dq      OTHER << 16 | 0x850000000000
idt_32_end:
idt_32_pointer:
        dw      idt_32_end - idt_32 - 1
        dd      idt_32
ldt:    dq      0, 0x00cf93000000ffff
tss_main: times 7 dd 0
        dd      tables
        times 17 dd 0
        dd      0x680000
tss_other:
        TSS_32  tables + 4096, other_task, other_stack, 0xc
tss_double:
        TSS_32  tables, double_task, double_stack, DATA
tss_faulty:
        TSS_32  tables, faulty_task, double_stack, BAD
saved_rsp: dq   0
seen:   dd      0
asked:  dd      0
double_return: dd 0
double_eip: dd  0

section .bss
alignb 4096
tables: resb    2 * 4096
        resb    STACK
other_stack:
        resb    STACK
double_stack:
