; SPDX-License-Identifier: BSD-2-Clause
; Entry points of exceptions and interrupts in Socle, and accesses that may fault.

bits 64
default rel

extern trap_entry
global trap_stubs, trap_stub_size

section .text
%assign trap_stub_size 16
align 16
trap_stubs:
%assign vector 0
%rep 256
align 16
%if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
        db      0x90, 0x90              ; the processor pushed an error code
%else
        push    byte 0
%endif
        push    dword vector
        jmp     near trap_common
%assign vector vector + 1
%endrep

align 16
trap_common:
        push    rax
        push    rbx
        push    rcx
        push    rdx
        push    rsi
        push    rdi
        push    rbp
        push    r8
        push    r9
        push    r10
        push    r11
        push    r12
        push    r13
        push    r14
        push    r15
        cld
        mov     rdi, rsp
        ; For the backtrace: a frame whose return address is the interrupted instruction.
        push    qword [rsp + 17 * 8]
        push    rbp
        mov     rbp, rsp
        and     rsp, -16
        call    trap_entry
        mov     rsp, rbp
        add     rsp, 16
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rbp
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rbx
        pop     rax
        add     rsp, 16
        iretq

; bool rdmsr_safe(u32 msr, u64 *value): #GP at .read continues at rdmsr_failed.
global rdmsr_safe, rdmsr_faulting, rdmsr_failed
rdmsr_safe:
        mov     ecx, edi
rdmsr_faulting:
        rdmsr
        shl     rdx, 32
        or      rax, rdx
        mov     [rsi], rax
        mov     eax, 1
        ret
rdmsr_failed:
        xor     eax, eax
        ret
