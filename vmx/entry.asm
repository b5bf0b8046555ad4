; SPDX-License-Identifier: BSD-2-Clause
; The world switch.

%include "core/registers.inc"

bits 64
default rel

%define VMCS_HOST_RSP 0x6c14

section .text
; bool vmx_enter(u64 *gpr, bool launched): RSP, RIP and RFLAGS are in the VMCS.
global vmx_enter, vmx_exited
vmx_enter:
        push_each CALLEE_SAVED, rdi
        mov     eax, VMCS_HOST_RSP
        vmwrite rax, rsp
        test    sil, sil
        mov     rax, [rdi + GPR(0)]
        load_guest
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
        save_guest
        pop     rax
        mov     [rdi + GPR(7)], rax
        pop     rdi
        mov     eax, 1
        ; No guest value stays in a register that speculation could use.
leave:  clear_each ecx, edx, esi, edi, r8d, r9d, r10d, r11d
        pop_each CALLEE_SAVED
        ret
