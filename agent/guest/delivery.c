/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery.h"

#include "finish.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISK "/dev/ubdd"
#define NAMES "appliance/hosts"         /* in the archive */

enum {
	UEVENT_MAX = 2048,                  /* UEVENT_BUFFER_SIZE of the kernel */
	UEVENTS_OF_KERNEL = 1,              /* the multicast group; lib/kobject_uevent.c */
};

static int disks = -1;

void delivery_watch(void)
{
	const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = UEVENTS_OF_KERNEL};
	disks = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	if (disks < 0 || bind(disks, (const struct sockaddr *)&address, sizeof address) < 0)
		fail(EXIT_RUNTIME, "cannot watch for disks: %s", strerror(errno));
}

int delivery_fd(void)
{
	return disks;
}

/* "add@/devices/platform/uml-blkdev.3/block/ubdd", and behind a NUL the same in variables. */
static bool tells_of_disk(const char *event)
{
	static const char add[] = "add@", block[] = "/block/ubdd";
	size_t length = strlen(event);
	return strncmp(event, add, sizeof add - 1) == 0 && length >= sizeof block - 1
		&& strcmp(event + length - (sizeof block - 1), block) == 0;
}

bool delivery_came(void)
{
	char event[UEVENT_MAX + 1];
	struct sockaddr_nl sender = {0};
	socklen_t length = sizeof sender;
	bool came = false;
	ssize_t size;
	while ((size = recvfrom(disks, event, UEVENT_MAX, 0, (struct sockaddr *)&sender, &length)) >= 0) {
		event[size] = '\0';
		/* Processes can send here as well; only the kernel has no port. */
		if (sender.nl_pid == 0 && tells_of_disk(event))
			came = true;
		length = sizeof sender;
	}
	return came && delivery_is_there();
}

bool delivery_is_there(void)
{
	return access(DISK, F_OK) == 0;
}

struct archive *delivery_open(const struct reason *reason)
{
	static struct archive archive;      /* static for its size */
	int fd = open(DISK, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		refuse(reason, "cannot open the disk %s: %s", DISK, strerror(errno));
		return NULL;
	}
	archive_begin(&archive, fd, reason);
	return &archive;
}

void delivery_close(struct archive *archive)
{
	close(archive->fd);
}

bool delivery_begins_with_names(const struct archive *archive)
{
	return archive->count == 1 && strcmp(archive->name, NAMES) == 0;
}

bool delivery_has_names(void)
{
	char text[64];
	const struct reason ignored = {text, sizeof text};
	struct archive *archive = delivery_open(&ignored);
	if (archive == NULL)
		return false;
	bool names = archive_next(archive) && delivery_begins_with_names(archive);
	delivery_close(archive);
	return names;
}
