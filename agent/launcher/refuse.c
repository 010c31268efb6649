/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "descriptors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REASON_MAX = 4096 };

static void tell_systemd(const char *reason)
{
	char datagram[REASON_MAX + sizeof "STATUS="];
	int notify = find_notify();
	int size = snprintf(datagram, sizeof datagram, "STATUS=%s", reason);
	/* The journal has it in any case. */
	if (notify >= 0 && write(notify, datagram, (size_t)size) < 0)
		return;
}

_Noreturn void refuse(enum exit_code code, const char *format, ...)
{
	char reason[REASON_MAX];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(reason, sizeof reason, format, arguments);
	va_end(arguments);
	for (size_t size = strlen(reason); size > 0 && reason[size - 1] == '.'; size--)
		reason[size - 1] = '\0';
	/* <3> is LOG_ERR: journald reads the prefix, sd-daemon(3). */
	dprintf(STDERR_FILENO, "<3>Cannot start: %s.\n", reason);
	tell_systemd(reason);
	exit(code);
}
