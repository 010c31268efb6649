/* SPDX-License-Identifier: Apache-2.0 */
#include "finish.h"

#include "log.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REAP_TIMEOUT_S = 2 };            /* for a process the kernel cannot kill at once */

/* SIGCHLD is blocked in init, so one that comes between waitpid() and sigtimedwait() is not missed. */
static void kill_everything(void)
{
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	kill(-1, SIGKILL);
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);
		if (pid > 0)
			continue;
		if (pid < 0)
			return;             /* ECHILD: nobody left */
		const struct timespec timeout = {.tv_sec = REAP_TIMEOUT_S};
		if (sigtimedwait(&child, NULL, &timeout) < 0 && errno == EAGAIN) {
			log_print(LOG_WARNING, "some processes cannot be killed, ignoring");
			return;
		}
	}
}

/* arch/um/kernel/exitcode.c: what is written here is what the kernel process exits with. */
static void set_exit_code(enum exit_code code)
{
	char text[8];
	int size = snprintf(text, sizeof text, "%d\n", code);
	int fd = open("/proc/exitcode", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)size) != size)
		log_print(LOG_ERR, "cannot set the exit code %d: %s", code, strerror(errno));
}

_Noreturn void finish(enum exit_code code)
{
	kill_everything();
	mounts_release();
	if (code != EXIT_STOPPED)
		set_exit_code(code);
	log_flush();
	reboot(RB_POWER_OFF);
	/* Only without CAP_SYS_BOOT. Returning panics the kernel, which ends the guest as well. */
	_exit(code);
}

_Noreturn void fail(enum exit_code code, const char *format, ...)
{
	char reason[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(reason, sizeof reason, format, arguments);
	va_end(arguments);
	log_print(LOG_ERR, "%s", reason);
	notify_send("STATUS=%s", reason);
	finish(code);
}
