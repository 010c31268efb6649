/* SPDX-License-Identifier: Apache-2.0 */
#include "descriptors.h"

#include "finish.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int descriptors_open_signals(void)
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
		fail(EXIT_RUNTIME, "cannot block signals: %s", strerror(errno));
	int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fail(EXIT_RUNTIME, "cannot open a signalfd: %s", strerror(errno));
	return fd;
}

int descriptors_open_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
		fail(EXIT_RUNTIME, "cannot open the socket %s: %s", path, strerror(errno));
	umask(mask);
	return fd;
}
