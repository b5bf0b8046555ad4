; SPDX-License-Identifier: BSD-2-Clause
; Brings a test guest from QEMU's multiboot loader to guest_start in long mode, and its other processors to a
; C function. Memory below 4 GiB is mapped one to one, user pages, all rights; interrupts are off.

bits 32
extern load_start, load_end, bss_end, guest_start, on_exception
global start, gdt, multiboot_info, page_map, page_directories, gdt_pointer, tss, idt_pointer, load_idt, exception_stubs
global ap_trampoline, ap_trampoline_end, ap_function, ap_count, enter_user, leave_user, enter_long_mode

section .header
header:
        dd      0x1badb002, 0x00010003, -(0x1badb002 + 0x00010003)
        dd      header, load_start, load_end, bss_end, start

section .text
start:
        cld
        cli
        mov     esp, boot_stack_top
        mov     [multiboot_info], ebx
        mov     edi, page_directories   ; 2048 leaves of 2 MiB: present, write, user, large
        mov     eax, 0x87
.leaf:
        mov     [edi], eax
        add     eax, 0x200000
        add     edi, 8
        cmp     edi, page_directories + 4 * 4096
        jb      .leaf
        mov     edi, page_pointers
        mov     eax, page_directories + 7
.pointer:
        mov     [edi], eax
        add     eax, 4096
        add     edi, 8
        cmp     edi, page_pointers + 4 * 8
        jb      .pointer
        mov     dword [page_map], page_pointers + 7
        mov     eax, tss                ; the descriptor's base, in its four pieces
        mov     [gdt.tss + 2], ax
        shr     eax, 16
        mov     [gdt.tss + 4], al
        mov     [gdt.tss + 7], ah
        mov     dword [tss + 4], fault_stack_top        ; RSP0
        call    enter_long_mode
        lgdt    [gdt_pointer]
        jmp     0x08:.long_mode
bits 64
.long_mode:
        call    load_segments
        mov     rsp, boot_stack_top
        mov     eax, 0x30
        ltr     ax
        call    guest_start
.halt:
        cli
        hlt
        jmp     .halt

load_segments:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        xor     eax, eax
        mov     fs, eax
        mov     gs, eax
        ret

bits 32
; PAE, long mode, paging on page_map. The caller then jumps to a 64-bit code segment.
enter_long_mode:
        mov     eax, cr4
        or      eax, 0x20
        mov     cr4, eax
        mov     eax, page_map
        mov     cr3, eax
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, 0x100
        wrmsr
        mov     eax, cr0
        or      eax, 0x80010021         ; PG, WP, NE, PE
        and     eax, ~0x60000000        ; CD, NW
        mov     cr0, eax
        ret

; Copied to AP_PAGE; SIPI starts it there in real mode.
bits 16
ap_trampoline:
        cli
        mov     ax, cs
        mov     ds, ax
        o32 lgdt [.pointer - ap_trampoline]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x18:ap_protected
.pointer:
        dw      gdt_end - gdt - 1
        dd      gdt
ap_trampoline_end:

bits 32
ap_protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, ap_stack_top
        call    enter_long_mode
        jmp     0x08:.long_mode
bits 64
.long_mode:
        call    load_segments
        mov     rsp, ap_stack_top
        lidt    [idt_pointer]
        lock inc dword [ap_count]
        call    [ap_function]
.halt:
        cli
        hlt
        jmp     .halt

load_idt:
        lidt    [idt_pointer]
        ret

; void enter_user(void (*function)(void)): runs it in ring 3; it ends by leave_user().
enter_user:
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        mov     [kernel_stack], rsp
        push    qword 0x23              ; SS
        push    qword user_stack_top - 8
        push    qword 0x3002            ; IOPL 3, interrupts off
        push    qword 0x2b              ; CS
        push    rdi
        iretq
leave_user:
        int     0xff
after_user:
        mov     rsp, [kernel_stack]
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret

; A stub per vector, 16 bytes each: vector and error code on the stack, then the common part.
align 16
exception_stubs:
%assign vector 0
%rep 256
align 16
%if vector == 255
        jmp     after_user
%else
%if vector != 8 && vector != 17 && (vector < 10 || vector > 14)
        push    qword 0
%endif
        push    qword vector
        jmp     near exception_common
%endif
%assign vector vector + 1
%endrep
align 16
exception_common:
        push    rax
        push    rcx
        push    rdx
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r11
        cld
        mov     rdi, rsp
        call    on_exception
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 16
        iretq

section .data
align 8
gdt:
        dq      0
        dq      0x00af9b000000ffff      ; 08: 64-bit code
        dq      0x00cf93000000ffff      ; 10: data
        dq      0x00cf9b000000ffff      ; 18: 32-bit code
        dq      0x00cff3000000ffff      ; 20: user data
        dq      0x00affb000000ffff      ; 28: user 64-bit code
.tss:   dq      0x0000890000000067, 0   ; 30
        dq      0x00009b000000ffff      ; 40: 16-bit code
        dq      0x000093000000ffff      ; 48: 16-bit data
gdt_end:
gdt_pointer:
        dw      gdt_end - gdt - 1
        dq      gdt
extern idt
idt_pointer:
        dw      256 * 16 - 1
        dq      idt
ap_function:    dq 0
ap_count:       dd 0
kernel_stack:   dq 0
multiboot_info: dq 0

section .bss
alignb 4096
page_map:       resb 4096
page_pointers:  resb 4096
page_directories: resb 4 * 4096
tss:            resb 128
alignb 16
                resb 16384
boot_stack_top: resb 8192
fault_stack_top: resb 8192
user_stack_top: resb 16384
ap_stack_top:
