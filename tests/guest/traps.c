/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a guest and finds out whether its kernel keeps the promises that are hard to keep when every page fault and
 * every system call is a trap into another process: what a signal handler is told, and whose memory is whose. Says
 * "passed", or what was wrong, with the line.
 */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "expect.h"

#define PAGE_FAULT 14
#define PROTECTION_FAULT 13
#define WRITE_BIT 2

/* --- what a signal handler is told ------------------------------------------------------------------------------ */

enum access { READ, WRITE, EXECUTE };

static sigjmp_buf after_fault;
static struct {
    int signal, code;
    char *address;
    long trap, error, instruction;
} seen;

static void on_fault(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    seen.signal = signal;
    seen.code = info->si_code;
    seen.address = info->si_addr;
    seen.trap = registers[REG_TRAPNO];
    seen.error = registers[REG_ERR];
    seen.instruction = registers[REG_RIP];
    siglongjmp(after_fault, 1);
}

/* Returns whether it was a fault; what of is in `seen`. */
static int faults(char *address, enum access access) {
    memset(&seen, 0, sizeof seen);
    if (sigsetjmp(after_fault, 1))
        return 1;
    switch (access) {
    case READ: __asm__ volatile("movb (%0), %%al" ::"r"(address) : "rax", "memory"); break;
    case WRITE: __asm__ volatile("movb $7, (%0)" ::"r"(address) : "memory"); break;
    case EXECUTE: __asm__ volatile("call *%0" ::"r"(address) : "memory"); break;
    }
    return 0;
}

static void expect_segv_at(int line, char *address, enum access access, int code) {
    expect_at(line, "it faults", faults(address, access));
    expect_at(line, "SIGSEGV", seen.signal == SIGSEGV);
    expect_at(line, "si_code", seen.code == code);
    expect_at(line, "si_addr", seen.address == address);
    expect_at(line, "trap number", seen.trap == PAGE_FAULT);
    expect_at(line, "write bit of the error code", !!(seen.error & WRITE_BIT) == (access == WRITE));
    expect_at(line, "instruction", access != EXECUTE || (char *)seen.instruction == address);
}
#define expect_segv(address, access, code) expect_segv_at(__LINE__, address, access, code)

static void test_unmapped(void) {
    char *hole = map_private(2, PROT_READ | PROT_WRITE);
    hole[0] = hole[PAGE] = 1;
    munmap(hole, 2 * PAGE);
    for (enum access access = READ; access <= EXECUTE; access++) {
        expect_segv(hole, access, SEGV_MAPERR);
        expect_segv(hole + PAGE + 5, access, SEGV_MAPERR);
    }
    expect(faults((char *)0x8000000000000000, READ));
    expect(seen.signal == SIGSEGV && seen.trap == PROTECTION_FAULT);
}

static void test_protection(void) {
    for (int touched = 0; touched <= 1; touched++) {
        char *memory = map_private(3, PROT_READ | PROT_WRITE);
        if (touched)
            memory[0] = memory[PAGE] = memory[2 * PAGE] = 3;
        mprotect(memory, PAGE, PROT_NONE);
        expect_segv(memory, READ, SEGV_ACCERR);
        expect_segv(memory, WRITE, SEGV_ACCERR);
        expect_segv(memory, EXECUTE, SEGV_ACCERR);
        mprotect(memory + PAGE, PAGE, PROT_READ);
        expect_segv(memory + PAGE + 9, WRITE, SEGV_ACCERR);
        expect(!faults(memory + PAGE, READ));
        expect_segv(memory + PAGE + 9, WRITE, SEGV_ACCERR);
        mprotect(memory, 3 * PAGE, PROT_READ | PROT_WRITE);
        expect(memory[0] == 3 * touched && memory[PAGE] == 3 * touched && memory[2 * PAGE] == 3 * touched);
        expect(!faults(memory, WRITE) && !faults(memory + PAGE, WRITE) && !faults(memory + 2 * PAGE, WRITE));
        munmap(memory, 3 * PAGE);
    }
    /* Memory that may only be written. */
    char *memory = map_private(1, PROT_WRITE);
    expect(!faults(memory, WRITE));
    munmap(memory, PAGE);
}

static void test_toggled_protection(void) {
    char *memory = map_private(1, PROT_READ | PROT_WRITE);
    for (int round = 0; round < 100; round++) {
        expect(!faults(memory + round, WRITE));
        mprotect(memory, PAGE, PROT_READ);
        expect_segv(memory + round, WRITE, SEGV_ACCERR);
        expect(memory[round] == 7);
        mprotect(memory, PAGE, PROT_NONE);
        expect_segv(memory + round, READ, SEGV_ACCERR);
        mprotect(memory, PAGE, PROT_READ | PROT_WRITE);
    }
    munmap(memory, PAGE);
}

static int temporary_file(size_t pages) {
    char name[] = "/tmp/traps-XXXXXX";
    int file = mkstemp(name);
    expect(file >= 0);
    unlink(name);
    expect(ftruncate(file, pages * PAGE) == 0);
    return file;
}

static void test_files(void) {
    int file = temporary_file(2);
    char *shared = map(3, PROT_READ | PROT_WRITE, MAP_SHARED, file);
    char *private = map(3, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    char *readable = map(3, PROT_READ, MAP_SHARED, file);

    for (enum access access = READ; access <= WRITE; access++) {
        expect(faults(shared + 2 * PAGE, access) && seen.signal == SIGBUS && seen.code == BUS_ADRERR);
        expect(faults(private + 2 * PAGE, access) && seen.signal == SIGBUS && seen.code == BUS_ADRERR);
        expect(seen.address == private + 2 * PAGE);
    }
    expect_segv(readable, WRITE, SEGV_ACCERR);
    expect(readable[0] == 0 && shared[0] == 0);
    shared[0] = 1;
    expect(readable[0] == 1 && private[0] == 1);
    shared[0] = 2;
    expect(private[0] == 2); /* a page that was only read is still the file's */
    private[0] = 9;
    shared[0] = 3;
    expect(private[0] == 9 && readable[0] == 3);
    expect_segv(readable, WRITE, SEGV_ACCERR);
    munmap(shared, 3 * PAGE);
    munmap(private, 3 * PAGE);
    munmap(readable, 3 * PAGE);
    close(file);
}

/* Writable, and no mapping touches it on either side. */
static char *map_apart(size_t pages) {
    char *fence = map_private(pages + 2, PROT_NONE);
    mprotect(fence + PAGE, pages * PAGE, PROT_READ | PROT_WRITE);
    return fence + PAGE;
}

static void unmap_apart(char *memory, size_t pages) { munmap(memory - PAGE, (pages + 2) * PAGE); }

/* How many pages of its own the process has in the mapping that begins there. */
static int own_pages(const char *memory) {
    char line[256], start[32];
    int kilobytes = -1, here = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    expect(file != NULL);
    snprintf(start, sizeof start, "%lx-", (unsigned long)memory);
    while (kilobytes < 0 && fgets(line, sizeof line, file)) {
        here |= strncmp(line, start, strlen(start)) == 0;
        if (here)
            sscanf(line, "Anonymous: %d", &kilobytes);
    }
    fclose(file);
    return kilobytes / 4;
}

/* Reading what was never written takes no memory. */
static void test_reading_zeroes(void) {
    enum { PAGES = 256 };
    char *memory = map_apart(PAGES);
    int sum = 0;
    for (int page = 0; page < PAGES; page++)
        sum += memory[page * PAGE];
    expect(sum == 0);
    expect(own_pages(memory) == 0);
    unmap_apart(memory, PAGES);
}

/* --- writing from one end to the other brings pages in ahead ---------------------------------------------------- */

static void test_runs(void) {
    enum { PAGES = 64, SOME = 20 };
    for (int upwards = 0; upwards <= 1; upwards++) {
        char *memory = map_apart(PAGES), *first = upwards ? memory : memory + (PAGES - 1) * PAGE;
        long step = upwards ? PAGE : -PAGE;
        for (int count = 0; count < PAGES; count++) {
            first[count * step] = (char)(count + 1);
            if (count + 1 == SOME) /* more than was written, but not much more */
                expect(own_pages(memory) > SOME && own_pages(memory) <= SOME + SOME / 2);
        }
        for (int count = 0; count < PAGES; count++) {
            char *page = first + count * step;
            expect(page[0] == count + 1 && page[1] == 0 && page[PAGE - 1] == 0);
        }
        expect(own_pages(memory) == PAGES);
        unmap_apart(memory, PAGES);
    }

    char *memory = map_apart(PAGES); /* writing here and there takes nothing along */
    for (int page = 0; page < PAGES; page += 2)
        memory[page * PAGE] = 1;
    expect(own_pages(memory) == PAGES / 2);
    unmap_apart(memory, PAGES);
}

static void test_runs_end_at_borders(void) {
    enum { PAGES = 64, SOME = 20 };
    char *memory = map_apart(PAGES);
    mprotect(memory + SOME * PAGE, PAGE, PROT_READ);
    for (int page = 0; page < SOME; page++)
        memory[page * PAGE] = 1;
    expect_segv(memory + SOME * PAGE, WRITE, SEGV_ACCERR);
    expect(own_pages(memory + SOME * PAGE) == 0);
    unmap_apart(memory, PAGES);

    int file = temporary_file(SOME);
    char *shared = map(SOME, PROT_READ | PROT_WRITE, MAP_SHARED, file);
    char *private = map(PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    memset(shared, 's', SOME * PAGE);
    for (int page = 0; page < SOME; page++) {
        expect(private[page * PAGE] == 's');
        private[page * PAGE] = 'p';
        expect(private[page * PAGE + 1] == 's' && shared[page * PAGE] == 's');
    }
    expect(faults(private + SOME * PAGE, WRITE) && seen.signal == SIGBUS && seen.code == BUS_ADRERR);
    munmap(shared, SOME * PAGE);
    munmap(private, PAGES * PAGE);
    close(file);
}

static int deep(int levels) {
    volatile char frame[3 * PAGE];
    frame[0] = (char)levels;
    return levels == 0 ? 0 : frame[0] - frame[0] + 1 + deep(levels - 1);
}

static void test_stack(void) {
    expect(deep(100) == 100);
}

/* --- whose memory is whose -------------------------------------------------------------------------------------- */

static void test_fork(void) {
    enum { PAGES = 64 };
    int *private = (int *)map_private(PAGES, PROT_READ | PROT_WRITE), step = PAGE / sizeof(int);
    int *shared = (int *)map(PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);

    for (int round = 0; round < 10; round++) {
        for (int page = 0; page < PAGES; page += 2)
            private[page * step] = round;
        pid_t child = fork();
        expect(child >= 0);
        for (int page = 0; page < PAGES; page += 2) {
            expect(private[page * step] == round);
            private[page * step] = child ? -1 : -2;
            if (page % 8 == 0)
                sched_yield();
        }
        for (int page = 0; page < PAGES; page += 2)
            expect(private[page * step] == (child ? -1 : -2));
        if (child == 0) {
            for (int page = 0; page < PAGES; page++)
                shared[page * step] = round + page;
            _exit(0);
        }
        wait_success(child);
        for (int page = 0; page < PAGES; page++)
            expect(shared[page * step] == round + page);
    }
    munmap(private, PAGES * PAGE);
    munmap(shared, PAGES * PAGE);
}

/* Pages that fork() left to both are copied ahead too, each process its own. */
static void test_runs_after_fork(void) {
    enum { PAGES = 64 };
    char *memory = map_private(PAGES, PROT_READ | PROT_WRITE);
    memset(memory, 'p', PAGES * PAGE);
    pid_t child = fork();
    expect(child >= 0);
    for (int page = 0; page < PAGES; page++) {
        expect(memory[page * PAGE] == 'p');
        memory[page * PAGE] = child ? 'q' : 'c';
        expect(memory[page * PAGE + 1] == 'p');
        if (page % 4 == 0)
            sched_yield();
    }
    for (int page = 0; page < PAGES; page++)
        expect(memory[page * PAGE] == (child ? 'q' : 'c'));
    if (child == 0)
        _exit(0);
    wait_success(child);
    munmap(memory, PAGES * PAGE);
}

static void handle_faults(void) {
    static char stack[65536];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

int main(void) {
    handle_faults();
    test_unmapped();
    test_protection();
    test_toggled_protection();
    test_files();
    test_reading_zeroes();
    test_runs();
    test_runs_end_at_borders();
    test_stack();
    test_fork();
    test_runs_after_fork();
    dprintf(1, "passed\n");
    return 0;
}
