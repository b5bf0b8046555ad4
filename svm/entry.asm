; SPDX-License-Identifier: BSD-2-Clause
; The world switch.

%include "core/registers.inc"

bits 64
default rel

section .text
; void svm_enter(u64 *gpr, paddr_t vmcb): GIF is 0 before and after; RAX and RSP are in the VMCB.
global svm_enter
svm_enter:
        push_each CALLEE_SAVED, rdi
        mov     rax, rsi
        load_guest
        mov     rdi, [rdi + GPR(7)]
        vmrun
        mov     rax, rdi
        pop     rdi
        mov     [rdi + GPR(7)], rax
        save_guest
        ; No guest value stays in a register that speculation could use.
        clear_each eax, ecx, edx, esi, r8d, r9d, r10d, r11d
        pop_each CALLEE_SAVED
        ret
