; SPDX-License-Identifier: BSD-2-Clause
; The world switch.

bits 64
default rel

%define GPR(n) (8 * (n))
%define VMCS_HOST_RSP 0x6c14

section .text
; bool vmx_enter(u64 *gpr, bool launched): RSP, RIP and RFLAGS are in the VMCS.
global vmx_enter, vmx_exited
vmx_enter:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        push    rdi
        mov     eax, VMCS_HOST_RSP
        vmwrite rax, rsp
        test    sil, sil
        mov     rax, [rdi + GPR(0)]
        mov     rcx, [rdi + GPR(1)]
        mov     rdx, [rdi + GPR(2)]
        mov     rbx, [rdi + GPR(3)]
        mov     rbp, [rdi + GPR(5)]
        mov     rsi, [rdi + GPR(6)]
        mov     r8, [rdi + GPR(8)]
        mov     r9, [rdi + GPR(9)]
        mov     r10, [rdi + GPR(10)]
        mov     r11, [rdi + GPR(11)]
        mov     r12, [rdi + GPR(12)]
        mov     r13, [rdi + GPR(13)]
        mov     r14, [rdi + GPR(14)]
        mov     r15, [rdi + GPR(15)]
        mov     rdi, [rdi + GPR(7)]
        jnz     .resume
        vmlaunch
        jmp     .failed
.resume:
        vmresume
.failed:
        pop     rdi
        xor     eax, eax
        jmp     leave
vmx_exited:
        push    rdi
        mov     rdi, [rsp + 8]
        mov     [rdi + GPR(0)], rax
        mov     [rdi + GPR(1)], rcx
        mov     [rdi + GPR(2)], rdx
        mov     [rdi + GPR(3)], rbx
        mov     [rdi + GPR(5)], rbp
        mov     [rdi + GPR(6)], rsi
        mov     [rdi + GPR(8)], r8
        mov     [rdi + GPR(9)], r9
        mov     [rdi + GPR(10)], r10
        mov     [rdi + GPR(11)], r11
        mov     [rdi + GPR(12)], r12
        mov     [rdi + GPR(13)], r13
        mov     [rdi + GPR(14)], r14
        mov     [rdi + GPR(15)], r15
        pop     rax
        mov     [rdi + GPR(7)], rax
        pop     rdi
        mov     eax, 1
        ; No guest value stays in a register that speculation could use.
leave:  xor     ecx, ecx
        xor     edx, edx
        xor     esi, esi
        xor     edi, edi
        xor     r8d, r8d
        xor     r9d, r9d
        xor     r10d, r10d
        xor     r11d, r11d
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret
