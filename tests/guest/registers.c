/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a guest and finds out whether FP and vector registers stay whose they are, whatever comes in between: system
 * calls, page faults, signals, other threads and processes, and a debugger. Says "passed", or what was wrong, with the
 * line.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <ucontext.h>

#include "expect.h"

enum { VECTORS = 16, VECTOR_BYTES = 32 };

struct vectors {
    unsigned char byte[VECTORS][VECTOR_BYTES];
};

struct between {
    long call, argument[3];
    volatile char *read, *written;
    long spins;
};

/*
 * Loads all vector registers, makes a system call, reads from one page and writes to another, spins, and stores the
 * registers. Nothing but the kernel has them in between. Returns the system call's result.
 */
long carry_sse(const struct vectors *, struct vectors *, const struct between *);
long carry_avx(const struct vectors *, struct vectors *, const struct between *);

#define EACH(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)
#define CARRY(name, LOAD, STORE)                                                                                       \
    __asm__(".globl " #name "\n" #name ": push %rbx; push %r12; mov %rsi, %r12; mov %rdx, %rbx\n" EACH(LOAD)           \
            "mov (%rbx), %rax; mov 8(%rbx), %rdi; mov 16(%rbx), %rsi; mov 24(%rbx), %rdx; syscall\n"                   \
            "mov 32(%rbx), %rcx; movb (%rcx), %cl; mov 40(%rbx), %rcx; movb $1, (%rcx); mov 48(%rbx), %rcx\n"          \
            "0: dec %rcx; jns 0b\n" EACH(STORE) "pop %r12; pop %rbx; ret\n")
#define LOAD_SSE(n) "movdqu 32*" #n "(%rdi), %xmm" #n "\n"
#define STORE_SSE(n) "movdqu %xmm" #n ", 32*" #n "(%r12)\n"
#define LOAD_AVX(n) "vmovdqu 32*" #n "(%rdi), %ymm" #n "\n"
#define STORE_AVX(n) "vmovdqu %ymm" #n ", 32*" #n "(%r12)\n"
CARRY(carry_sse, LOAD_SSE, STORE_SSE);
CARRY(carry_avx, LOAD_AVX, STORE_AVX);

static int have_avx;

static long carry(const struct vectors *in, struct vectors *out, const struct between *between) {
    return (have_avx ? carry_avx : carry_sse)(in, out, between);
}

static int same(const struct vectors *one, const struct vectors *other) {
    for (int vector = 0; vector < VECTORS; vector++)
        if (memcmp(one->byte[vector], other->byte[vector], have_avx ? 32 : 16) != 0)
            return 0;
    return 1;
}

static void fill(struct vectors *vectors, unsigned seed) {
    for (size_t i = 0; i < sizeof *vectors; i++)
        ((unsigned char *)vectors)[i] = (unsigned char)((seed = seed * 1103515245 + 12345) >> 16);
}

static uint32_t get_mxcsr(void) {
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

static void set_mxcsr(uint32_t value) {
    __asm__ volatile("ldmxcsr %0" ::"m"(value));
}

static uint16_t get_x87_control(void) {
    uint16_t value;
    __asm__ volatile("fnstcw %0" : "=m"(value));
    return value;
}

static void set_x87_control(uint16_t value) {
    __asm__ volatile("fldcw %0" ::"m"(value));
}

enum { MXCSR_DEFAULT = 0x1f80, X87_DEFAULT = 0x37f };

/* One of four rounding modes in both control registers. */
static void set_rounding(unsigned mode) {
    set_mxcsr(MXCSR_DEFAULT | (mode & 3) << 13);
    set_x87_control((uint16_t)(X87_DEFAULT | (mode & 3) << 10));
}

static int is_rounding(unsigned mode) {
    return get_mxcsr() == (MXCSR_DEFAULT | (mode & 3) << 13) &&
           get_x87_control() == (X87_DEFAULT | (mode & 3) << 10);
}

static volatile char scratch;

static struct between only_call(long call, long first, long second) {
    return (struct between){.call = call, .argument = {first, second}, .read = &scratch, .written = &scratch};
}

/* All that may come between two instructions, with registers and rounding of one's own. */
static void carry_rounds(unsigned seed, int rounds) {
    enum { PAGES = 16 };
    struct vectors in, out;
    char *memory = map_private(PAGES, PROT_READ | PROT_WRITE);
    for (int round = 0; round < rounds; round++) {
        struct between between = only_call(round % 4 ? SYS_getpid : SYS_sched_yield, 0, 0);
        if (round % 3 == 1)
            between.written = memory + round / 2 % PAGES * PAGE;
        if (round % 3 == 2)
            between.read = memory + round / 2 % PAGES * PAGE;
        if (round % 50 == 0)
            between.spins = 1000000;
        fill(&in, seed + (unsigned)round);
        set_rounding(seed + (unsigned)round);
        carry(&in, &out, &between);
        expect(same(&in, &out));
        expect(is_rounding(seed + (unsigned)round));
        if (round % (2 * PAGES) == 0)
            madvise(memory, PAGES * PAGE, MADV_DONTNEED);
    }
    munmap(memory, PAGES * PAGE);
    set_rounding(0);
}

static void test_processes(void) {
    enum { PROCESSES = 4 };
    pid_t children[PROCESSES];
    for (unsigned i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            carry_rounds(1000 * i, 500);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++)
        wait_success(children[i]);
}

static void *carrying_thread(void *seed) {
    carry_rounds((unsigned)(uintptr_t)seed, 500);
    return NULL;
}

static void test_threads(void) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        expect(pthread_create(&threads[i], NULL, carrying_thread, (void *)(1000 * i)) == 0);
    carry_rounds(77, 500);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* A thread starts with its creator's rounding, not with that of one that ended before. */
static void *inheriting_thread(void *mode) {
    expect(is_rounding((unsigned)(uintptr_t)mode));
    set_rounding((unsigned)(uintptr_t)mode + 1);
    sched_yield();
    expect(is_rounding((unsigned)(uintptr_t)mode + 1));
    return NULL;
}

static void test_inheritance(void) {
    for (uintptr_t mode = 0; mode < 40; mode++) {
        pthread_t thread;
        set_rounding((unsigned)mode);
        expect(pthread_create(&thread, NULL, inheriting_thread, (void *)mode) == 0);
        pthread_join(thread, NULL);
        expect(is_rounding((unsigned)mode));
    }
    set_rounding(0);
}

/* The child has the parent's registers, and what it does to its own the parent does not see. */
static void test_forked_registers(void) {
    struct vectors in, out;
    struct between between = only_call(SYS_fork, 0, 0);
    for (unsigned round = 0; round < 10; round++) {
        fill(&in, round);
        set_rounding(round);
        long child = carry(&in, &out, &between);
        expect(child >= 0 && same(&in, &out) && is_rounding(round));
        if (child == 0) {
            carry_rounds(round + 5, 40);
            _exit(0);
        }
        wait_success((pid_t)child);
        expect(is_rounding(round));
    }
    set_rounding(0);
}

/* Parent and child share their memory until the child executes: a process with registers of its own. */
static void test_vfork(void) {
    static char *argv[] = {"traps", "executed", NULL}, *environment[] = {NULL};
    for (volatile unsigned round = 0; round < 10; round++) {
        set_rounding(round);
        pid_t child = vfork();
        if (child == 0) {
            set_rounding(round + 1);
            if (round % 2 == 0)
                execve("/proc/self/exe", argv, environment);
            _exit(round % 2 == 0);
        }
        expect(is_rounding(round));
        wait_success(child);
        expect(is_rounding(round));
    }
    set_rounding(0);
}

static void executed(void) {
    expect(is_rounding(0));
    struct vectors in, out;
    struct between between = only_call(SYS_getpid, 0, 0);
    fill(&in, 4711);
    carry(&in, &out, &between);
    expect(same(&in, &out));
    _exit(0);
}

static volatile sig_atomic_t signals;

static void clobber(int signal) {
    static const struct vectors ones = {.byte = {[0 ... VECTORS - 1] = {[0 ... VECTOR_BYTES - 1] = 0xff}}};
    struct vectors ignored;
    struct between between = only_call(SYS_getpid, 0, 0);
    (void)signal;
    carry(&ones, &ignored, &between);
    set_rounding(3);
    signals++;
}

static void test_signals(void) {
    struct vectors in, out;
    struct sigaction action = {.sa_handler = clobber};
    sigaction(SIGUSR1, &action, NULL);
    struct between between = only_call(SYS_kill, getpid(), SIGUSR1);
    for (unsigned round = 0; round < 50; round++) {
        fill(&in, round);
        set_rounding(round);
        expect(carry(&in, &out, &between) == 0);
        expect(same(&in, &out) && is_rounding(round));
    }
    expect(signals == 50);
    set_rounding(0);
}

/* A handler can look at the registers in its frame and change them. */
static void change_frame(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    fpregset_t registers = ((ucontext_t *)context)->uc_mcontext.fpregs;
    expect(registers->_xmm[3].element[0] == 0x11111111);
    registers->_xmm[3].element[0] = 0x22222222;
}

static void test_frame(void) {
    struct vectors in, out;
    struct sigaction action = {.sa_sigaction = change_frame, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR2, &action, NULL);
    struct between between = only_call(SYS_kill, getpid(), SIGUSR2);
    memset(&in, 0x11, sizeof in);
    carry(&in, &out, &between);
    expect(*(uint32_t *)out.byte[3] == 0x22222222 && *(uint32_t *)out.byte[4] == 0x11111111);
}

static void test_debugger(void) {
    pid_t child = fork();
    if (child == 0) {
        struct vectors in, out;
        struct between between = only_call(SYS_kill, getpid(), SIGSTOP);
        memset(&in, 0x33, sizeof in);
        expect(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        carry(&in, &out, &between);
        expect(*(uint32_t *)out.byte[5] == 0x44444444 && *(uint32_t *)out.byte[6] == 0x33333333);
        _exit(0);
    }
    int status;
    struct user_fpregs_struct registers;
    expect(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    carry_rounds(5, 20);
    expect(ptrace(PTRACE_GETFPREGS, child, NULL, &registers) == 0);
    expect(registers.xmm_space[5 * 4] == 0x33333333);
    registers.xmm_space[5 * 4] = 0x44444444;
    expect(ptrace(PTRACE_SETFPREGS, child, NULL, &registers) == 0);
    carry_rounds(6, 20);
    expect(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    wait_success(child);
}

int main(int argc, char **argv) {
    have_avx = __builtin_cpu_supports("avx") != 0;
    if (argc == 2 && strcmp(argv[1], "executed") == 0)
        executed();
    test_processes();
    test_threads();
    test_inheritance();
    test_forked_registers();
    test_vfork();
    test_signals();
    test_frame();
    test_debugger();
    dprintf(1, "passed\n");
    return 0;
}
