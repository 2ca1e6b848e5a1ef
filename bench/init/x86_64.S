# Process 1 of everything that is timed until its first instruction, whoever starts it.
#
# Its first act is to read the clock. It then writes the time into its own name, as 15 hexadecimal
# digits of nanoseconds on CLOCK_MONOTONIC, where /proc/PID/comm shows it to the host: no file, no
# socket and no library, so it means the same in every runtime. After that it reaps orphans, and
# ends on what runtimes send to a process 1 that is to end: SIGTERM, SIGINT, SIGPWR, SIGRTMIN+3.
#
# Numbers of system calls: arch/x86/entry/syscalls/syscall_64.tbl of the kernel.

        .globl  _start
_start:
        sub     $64, %rsp               # 0: time, 16: signal set, 24: name

        mov     $228, %eax              # clock_gettime(CLOCK_MONOTONIC, time)
        mov     $1, %edi
        mov     %rsp, %rsi
        syscall

        movq    $-1, 16(%rsp)           # rt_sigprocmask(SIG_BLOCK, all, none, 8)
        mov     $14, %eax
        xor     %edi, %edi
        lea     16(%rsp), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall

        imul    $1000000000, (%rsp), %rax
        add     8(%rsp), %rax
        lea     39(%rsp), %rdi          # digits from the last to the first
        movb    $0, (%rdi)
        mov     $15, %ecx
digit:  mov     %eax, %edx
        and     $15, %edx
        movzbl  digits(%rdx), %edx
        dec     %rdi
        mov     %dl, (%rdi)
        shr     $4, %rax
        dec     %ecx
        jnz     digit

        mov     $157, %eax              # prctl(PR_SET_NAME, name)
        mov     $15, %edi
        lea     24(%rsp), %rsi
        syscall

wait:   mov     $128, %eax              # rt_sigtimedwait(all, none, for ever, 8)
        lea     16(%rsp), %rdi
        xor     %esi, %esi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        cmp     $17, %eax               # SIGCHLD
        je      reap
        cmp     $2, %eax                # SIGINT
        je      end
        cmp     $15, %eax               # SIGTERM
        je      end
        cmp     $30, %eax               # SIGPWR
        je      end
        cmp     $37, %eax               # SIGRTMIN+3
        jne     wait

end:    mov     $60, %eax               # exit(0)
        xor     %edi, %edi
        syscall

reap:   mov     $61, %eax               # wait4(any, none, WNOHANG, none)
        mov     $-1, %rdi
        xor     %esi, %esi
        mov     $1, %edx
        xor     %r10d, %r10d
        syscall
        test    %eax, %eax
        jg      reap
        jmp     wait

        .section .rodata
digits: .ascii  "0123456789abcdef"
        .section .note.GNU-stack, "", @progbits
