; SPDX-License-Identifier: BSD-2-Clause
; Multiboot 1 and 2 headers, and the way from 32-bit protected mode to boot_main in long mode.
; Runs at its physical address, on tables that map the first 4 GiB one to one and the image high.

bits 32

MB1_MAGIC       equ 0x1badb002
MB1_FLAGS       equ 0x00010003          ; page-aligned modules, memory information, address fields
MB2_MAGIC       equ 0xe85250d6
VIRT_OFFSET     equ 0xffffffff80000000

; defined by linker.ld: physical addresses
extern image_start, image_load_end, image_end, boot_stack_top_phys
extern boot_main
global boot_entry

section .boot.header progbits alloc exec nowrite align=8
header:
mb1:
        dd      MB1_MAGIC, MB1_FLAGS, -(MB1_MAGIC + MB1_FLAGS)
        dd      mb1                     ; header_addr
        dd      image_start             ; load_addr
        dd      image_load_end
        dd      image_end
        dd      boot_entry

align 8
mb2:
        dd      MB2_MAGIC, 0, mb2_end - mb2, -(MB2_MAGIC + mb2_end - mb2)
        ; information request: command line, modules, memory map, ACPI (old, new)
        dw      1, 1
        dd      8 + 4 * 5
        dd      1, 3, 6, 14, 15
align 8
        dw      6, 0                    ; modules on page boundaries
        dd      8
align 8
        dw      3, 0                    ; entry address
        dd      12, boot_entry
align 8
        dw      0, 0
        dd      8
mb2_end:

section .boot progbits alloc exec nowrite align=16
boot_entry:
        cld
        cli
        mov     esp, boot_stack_top_phys
        mov     [boot_magic], eax
        mov     [boot_information], ebx

        ; Without long mode there is nothing that Socle could do on this machine.
        mov     eax, 0x80000000
        cpuid
        cmp     eax, 0x80000001
        jb      .no_long_mode
        mov     eax, 0x80000001
        cpuid
        test    edx, 1 << 29
        jz      .no_long_mode

        call    enter_long_mode
        lgdt    [boot_gdt_pointer]
        jmp     0x08:.long_mode

.no_long_mode:
        mov     esi, .text
.next:
        lodsb
        test    al, al
        jz      .halt
        mov     ah, al
        mov     dx, 0x3fd
.wait:
        in      al, dx
        test    al, 0x20
        jz      .wait
        mov     al, ah
        mov     dx, 0x3f8
        out     dx, al
        jmp     .next
.halt:
        hlt
        jmp     .halt
.text:  db      "socle: this processor has no 64-bit mode", 13, 10, 0

bits 64
.long_mode:
        xor     eax, eax
        mov     ss, eax
        mov     rsp, boot_stack_top_phys + VIRT_OFFSET
        mov     edi, [abs boot_magic]
        mov     esi, [abs boot_information]
        xor     ebp, ebp
        mov     rax, boot_main
        call    rax
.stop:
        hlt
        jmp     .stop

bits 32
; PAE, long mode with no-execute where the processor has it, paging on boot_pml4.
global enter_long_mode
enter_long_mode:
        mov     eax, cr4
        or      eax, 1 << 5
        mov     cr4, eax
        mov     eax, boot_pml4
        mov     cr3, eax
        mov     eax, 0x80000001
        cpuid
        and     edx, 1 << 20
        shr     edx, 9                  ; EFER.NXE
        or      edx, 1 << 8             ; EFER.LME
        mov     ebx, edx
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, ebx
        wrmsr
        mov     eax, cr0
        or      eax, 0x80010001         ; PG, WP, PE
        mov     cr0, eax
        ret

align 8
boot_gdt:
        dq      0
        dq      0x00af9b000000ffff      ; 08: 64-bit code
        dq      0x00cf93000000ffff      ; 10: data
        dq      0x00cf9b000000ffff      ; 18: 32-bit code, for the processors' start
boot_gdt_end:
boot_gdt_pointer:
        dw      boot_gdt_end - boot_gdt - 1
        dq      boot_gdt

; Copied to a page below 1 MiB and started there by SIPI: CS = page >> 4, IP = 0.
section .boot.trampoline progbits alloc exec nowrite align=16
global trampoline_start, trampoline_end
bits 16
trampoline_start:
        cli
        cld
        mov     ax, cs
        mov     ds, ax
        o32 lgdt [tr_gdt_pointer - trampoline_start]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x18:ap_protected
tr_gdt_pointer:
        dw      boot_gdt_end - boot_gdt - 1
        dd      boot_gdt
trampoline_end:

section .boot
bits 32
ap_protected:
        mov     ax, 0x10
        mov     ss, ax
        mov     esp, ap_stack_top
        call    enter_long_mode
        jmp     0x08:.long_mode
bits 64
.long_mode:
        ; Socle's own tables and this processor's stack are set by the processor that sent the SIPI.
        mov     rax, ap_enter
        jmp     rax

section .text
extern ap_main, ap_boot_cr3, ap_boot_stack
ap_enter:
        mov     rax, [rel ap_boot_cr3]
        mov     cr3, rax
        mov     rsp, [rel ap_boot_stack]
        xor     ebp, ebp
        call    ap_main
.stop:
        hlt
        jmp     .stop

section .boot.data progbits alloc noexec write align=4096
; Four page directories map 4 GiB by 2 MiB pages: one to one, as the direct map (PML4[256]), and the
; first GiB at the image's addresses.
boot_pml4:      dq boot_pdpt_low + 3
                times 255 dq 0
                dq boot_pdpt_low + 3
                times 254 dq 0
                dq boot_pdpt_high + 3
boot_pdpt_high: times 510 dq 0
                dq boot_pd + 3, 0
boot_pdpt_low:  dq boot_pd + 3, boot_pd + 0x1003, boot_pd + 0x2003, boot_pd + 0x3003
                times 508 dq 0
boot_pd:
%assign frame 0
%rep 2048
                dq frame + 0x83
%assign frame frame + 0x200000
%endrep
boot_magic:     dd 0
boot_information: dd 0
                times 256 db 0
ap_stack_top:

section .bss
alignb 4096
global boot_stack_top
boot_stack:     resb 16384
boot_stack_top:
