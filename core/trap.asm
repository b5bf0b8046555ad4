; SPDX-License-Identifier: BSD-2-Clause
; Entry points of exceptions and interrupts in Socle, and accesses that may fault.

%include "core/registers.inc"

bits 64
default rel

extern trap_entry
global trap_stubs, trap_stub_size

; As struct trap_frame has them, from its end.
%define ALL_BUT_RSP rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15

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
        push_each ALL_BUT_RSP
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
        pop_each ALL_BUT_RSP
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
