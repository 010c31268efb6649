/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_CANNOT_EXECUTE = 127 };

/* Runs in the child, on the memory of init: system calls only. */
static int become(char *const argv[], char *const environment[], int output)
{
	sigset_t none;
	sigemptyset(&none);
	if (setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return errno;
	if (output >= 0 && (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0))
		return errno;
	execve(argv[0], argv, environment);
	return errno;
}

/*
 * vfork(): a new address space costs a host process and about 1.5 ms in UML, so the one that execve()
 * makes should be the only one; and the child's errno comes back through the shared memory.
 */
pid_t process_start(char *const argv[], char *const environment[], int output)
{
	volatile int failure = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		failure = become(argv, environment, output);
		_exit(EXIT_CANNOT_EXECUTE);
	}
	if (pid > 0 && failure != 0) {
		waitpid(pid, NULL, 0);
		errno = failure;
		return -1;
	}
	return pid;
}

const char *process_describe(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(status));
	return text;
}
