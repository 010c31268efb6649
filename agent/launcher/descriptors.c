/* SPDX-License-Identifier: Apache-2.0 */
#include "descriptors.h"

#include "refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_DESCRIPTOR = 3 };          /* SD_LISTEN_FDS_START, sd_listen_fds(3) */

/* The number of the descriptor that systemd opened by this name, or -1: its place in "notify:tun0:tun1". */
static int inherited(const char *name)
{
	const char *at = getenv("LISTEN_FDNAMES");
	if (getenv("LISTEN_FDS") == NULL || at == NULL)
		return -1;
	for (int number = FIRST_DESCRIPTOR;; number++) {
		size_t size = strcspn(at, ":");
		if (size == strlen(name) && strncmp(at, name, size) == 0)
			return number;
		if (at[size] == '\0')
			return -1;
		at += size + 1;
	}
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	int notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify >= 0 && connect(notify, (const struct sockaddr *)&address, sizeof address) < 0) {
		close(notify);
		return -1;
	}
	return notify;
}

int find_notify(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	int notify = inherited("notify");
	if (notify >= 0)
		return notify;
	if (path == NULL) {
		errno = ENOENT;
		return -1;
	}
	return connect_to(path);
}

int open_notify(void)
{
	int notify = find_notify();
	if (notify < 0)
		refuse(EXIT_TEMPFAIL, "cannot connect to systemd's notification socket: %s", strerror(errno));
	return notify;
}

/*
 * It may have gone, or be taken by the guest before this one. The agent restores it: systemd is to try again.
 */
static _Noreturn void refuse_tap(const char *name)
{
	refuse(EXIT_TEMPFAIL, "cannot attach to tap %s: %s; `appliancectl apply` restores it", name, strerror(errno));
}

int open_tap(size_t index, const char *name)
{
	char inherited_name[16];
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	snprintf(inherited_name, sizeof inherited_name, "tun%zu", index);
	int tun = inherited(inherited_name);
	if (tun < 0)
		tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (tun < 0)
		refuse_tap(name);
	if (strlen(name) >= sizeof request.ifr_name)
		refuse(EXIT_CONFIG, "launch plan: %s is no name of a tap", name);
	strcpy(request.ifr_name, name);
	if (ioctl(tun, TUNSETIFF, &request) < 0)
		refuse_tap(name);
	return tun;
}
