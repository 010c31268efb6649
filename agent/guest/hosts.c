/* SPDX-License-Identifier: Apache-2.0 */
#include "hosts.h"

#include "delivery.h"
#include "finish.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOSTS "/run/appliance/hosts"

enum {
	OWN_MAX = 128 * 1024,
	NAMES_MAX = 64 * 1024,
};

static struct {
	char bytes[OWN_MAX + NAMES_MAX];    /* the own lines, and what is to stand behind them */
	size_t own;
	size_t written;                     /* how long the file is */
} hosts;

/* Behind the own lines. An archive with more than names is not what its sender thinks it is. */
static bool read_names(struct archive *archive, size_t *size)
{
	if (!archive_next(archive))
		return false;
	if (!delivery_begins_with_names(archive) || !S_ISREG(archive->entry.mode))
		return refuse(archive->reason, "the archive begins with something else: %s", archive->name);
	if (archive->entry.size > NAMES_MAX)
		return refuse(archive->reason, "more than %d bytes: %u", NAMES_MAX, archive->entry.size);
	*size = archive->entry.size;
	if (!archive_take(archive, hosts.bytes + hosts.own) || !archive_next(archive))
		return false;
	if (!archive_ended(archive))
		return refuse(archive->reason, "the archive has something else as well: %s", archive->name);
	return true;
}

static bool read_disk(const struct reason *reason, size_t *size)
{
	struct archive *archive = delivery_open(reason);
	if (archive == NULL)
		return false;
	bool read = read_names(archive, size);
	delivery_close(archive);
	return read;
}

/*
 * The own lines are overwritten with themselves. What is too much of the old names is first blanked out and then cut
 * off: in between it would be the end of an old line, and that could say something else.
 */
static bool write_file(size_t names)
{
	size_t size = hosts.own + names;
	size_t covered = size > hosts.written ? size : hosts.written;
	int fd = open(HOSTS, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	memset(hosts.bytes + size, '\n', covered - size);
	bool written = write(fd, hosts.bytes, covered) == (ssize_t)covered && ftruncate(fd, (off_t)size) == 0;
	hosts.written = size;
	close(fd);
	return written;
}

void hosts_configure(const char *own, size_t size)
{
	char text[256];
	const struct reason reason = {text, sizeof text};
	size_t names = 0;
	if (size > OWN_MAX)
		fail(EXIT_BOOT_PLAN, "boot plan: too much text for one file");
	memcpy(hosts.bytes, own, size);
	hosts.own = size;
	if (delivery_is_there() && !read_disk(&reason, &names)) {
		log_print(LOG_ERR, "names: %s", text);
		names = 0;
	}
	if (!write_file(names))
		fail(EXIT_RUNTIME, "cannot write %s: %s", HOSTS, strerror(errno));
}

void hosts_take(void)
{
	char text[256];
	const struct reason reason = {text, sizeof text};
	size_t names;
	if (!read_disk(&reason, &names))
		log_print(LOG_ERR, "names: %s", text);
	else if (!write_file(names))
		log_print(LOG_ERR, "names: cannot write %s: %s", HOSTS, strerror(errno));
}
