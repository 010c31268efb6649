/* SPDX-License-Identifier: Apache-2.0 */
/* What traps.c and registers.c have in common. */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL

#define expect(condition) expect_at(__LINE__, #condition, condition)

static inline void expect_at(int line, const char *text, int holds) {
    if (holds)
        return;
    dprintf(1, "line %d: not so: %s (errno %d)\n", line, text, errno);
    _exit(1);
}

static inline char *map(size_t pages, int protection, int flags, int file) {
    char *memory = mmap(NULL, pages * PAGE, protection, flags, file, 0);
    expect(memory != MAP_FAILED);
    return memory;
}

static inline char *map_private(size_t pages, int protection) {
    return map(pages, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static inline void wait_success(pid_t child) {
    int status;
    expect(waitpid(child, &status, 0) == child);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
