/* SPDX-License-Identifier: Apache-2.0 */
#include "configuration.h"

#include "finish.h"
#include "newc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DISK "/dev/ubdd"
#define DIRECTORY "/run/appliance/config"
#define PREFIX "appliance/config/"      /* of the names in the archive */

/* <sys/mount.h> cannot be had beside <linux/mount.h>, and that of a build host may be older than our kernel. */
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200        /* Linux 6.5 */
#endif

enum {
	DISK_READ_BYTES = 16 * 1024,
	UEVENT_MAX = 2048,                  /* UEVENT_BUFFER_SIZE of the kernel */
	UEVENTS_OF_KERNEL = 1,              /* the multicast group; lib/kobject_uevent.c */
	DEPTH_MAX = 32,
};

/* A mount that is attached nowhere, with the files that were at DIRECTORY before; -1: none. */
static int previous = -1;

/* Why something cannot be, for a caller. */
struct reason {
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3)))
static bool refuse(const struct reason *reason, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(reason->text, reason->size, format, arguments);
	va_end(arguments);
	return false;
}

/* --- the disk --------------------------------------------------------------------------------------- */

int configuration_watch_disks(void)
{
	const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = UEVENTS_OF_KERNEL};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
		fail(EXIT_RUNTIME, "cannot watch for disks: %s", strerror(errno));
	return fd;
}

/* "add@/devices/platform/uml-blkdev.3/block/ubdd", and behind a NUL the same in variables. */
static bool tells_of_disk(const char *event)
{
	static const char add[] = "add@", block[] = "/block/ubdd";
	size_t length = strlen(event);
	return strncmp(event, add, sizeof add - 1) == 0 && length >= sizeof block - 1
		&& strcmp(event + length - (sizeof block - 1), block) == 0;
}

bool configuration_disk_came(int disks)
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
	return came;
}

/* --- the archive ------------------------------------------------------------------------------------ */

struct reader {
	int fd;
	const struct reason *reason;
	uint64_t position;                  /* of the next byte, for the alignment */
	size_t at, filled;                  /* what is not yet taken of the buffer */
	char buffer[DISK_READ_BYTES];
};

static bool fill(struct reader *reader)
{
	ssize_t count = read(reader->fd, reader->buffer, sizeof reader->buffer);
	if (count < 0)
		return refuse(reader->reason, "cannot read the new configuration: %s", strerror(errno));
	if (count == 0)
		return refuse(reader->reason, "the archive of the new configuration is cut short");
	reader->at = 0;
	reader->filled = (size_t)count;
	return true;
}

/* The next bytes, `wanted` at most; NULL if there are none. */
static const char *take_some(struct reader *reader, size_t wanted, size_t *taken)
{
	if (reader->at == reader->filled && !fill(reader))
		return NULL;
	const char *bytes = reader->buffer + reader->at;
	size_t there = reader->filled - reader->at;
	*taken = wanted < there ? wanted : there;
	reader->at += *taken;
	reader->position += *taken;
	return bytes;
}

static bool take(struct reader *reader, char *bytes, size_t size)
{
	while (size > 0) {
		size_t taken;
		const char *some = take_some(reader, size, &taken);
		if (some == NULL)
			return false;
		memcpy(bytes, some, taken);
		bytes += taken;
		size -= taken;
	}
	return true;
}

static bool align(struct reader *reader)
{
	char padding[NEWC_ALIGNMENT];
	return take(reader, padding, (size_t)(-reader->position % NEWC_ALIGNMENT));
}

static bool store(int file, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t count = write(file, bytes, size);
		if (count < 0)
			return false;
		bytes += count;
		size -= (size_t)count;
	}
	return true;
}

/* To `file`, or to nowhere if that is -1. */
static bool copy_contents(struct reader *reader, int file, uint32_t size)
{
	while (size > 0) {
		size_t taken;
		const char *bytes = take_some(reader, size, &taken);
		if (bytes == NULL)
			return false;
		if (file >= 0 && !store(file, bytes, taken))
			return refuse(reader->reason, "cannot store the new configuration: %s", strerror(errno));
		size -= (uint32_t)taken;
	}
	return align(reader);
}

static bool copy_file(struct reader *reader, int top, const char *path, uint32_t size)
{
	int file = openat(top, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0)
		return refuse(reader->reason, "cannot store the new file %s: %s", path, strerror(errno));
	bool copied = copy_contents(reader, file, size);
	close(file);
	return copied;
}

static bool make_directory(struct reader *reader, int top, const char *path)
{
	return mkdirat(top, path, 0755) == 0
		|| refuse(reader->reason, "cannot make the new directory %s: %s", path, strerror(errno));
}

/*
 * Entries are directories and regular files with plain names, and nothing else: without links there is no way out of
 * `top`. What is beside the configuration was for the start.
 */
static bool extract_entry(struct reader *reader, int top, const struct newc_entry *entry, const char *name)
{
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
		return copy_contents(reader, -1, entry->size);
	const char *path = name + sizeof PREFIX - 1;
	if (!newc_is_plain_path(path))
		return refuse(reader->reason, "the new configuration has a file that is not allowed: %s", name);
	if (S_ISDIR(entry->mode))
		return make_directory(reader, top, path) && copy_contents(reader, -1, entry->size);
	if (S_ISREG(entry->mode))
		return copy_file(reader, top, path, entry->size);
	return refuse(reader->reason, "the new configuration has something that is no file: %s", name);
}

static bool extract(struct reader *reader, int top)
{
	for (;;) {
		char header[NEWC_HEADER_BYTES];
		char name[NEWC_NAME_MAX];
		struct newc_entry entry;
		if (!take(reader, header, sizeof header))
			return false;
		if (!newc_read_header(header, &entry))
			return refuse(reader->reason, "the new configuration is no archive");
		if (!take(reader, name, entry.name_size) || !align(reader))
			return false;
		name[entry.name_size - 1] = '\0';
		if (newc_is_trailer(name))
			return true;
		if (!extract_entry(reader, top, &entry, name))
			return false;
	}
}

static bool extract_disk(int top, const struct reason *reason)
{
	static struct reader reader;        /* static for its size */
	reader.reason = reason;
	reader.position = reader.at = reader.filled = 0;
	reader.fd = open(DISK, O_RDONLY | O_CLOEXEC);
	if (reader.fd < 0)
		return refuse(reason, "cannot open the new configuration: %s: %s", DISK, strerror(errno));
	bool extracted = extract(&reader, top);
	close(reader.fd);
	return extracted;
}

/* --- mounts ----------------------------------------------------------------------------------------- */

/* A tmpfs that is attached nowhere; -1 with errno. */
static int make_tmpfs(void)
{
	int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	if (context < 0)
		return -1;
	int tree = -1;
	if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "mode", "0755", 0) == 0
	    && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
			MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	int error = errno;
	close(context);
	errno = error;
	return tree;
}

static bool make_read_only(int tree)
{
	struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
	return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0;
}

static int copy_of_mount(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/* Under what is mounted there, which is then taken away: at no time is there nothing, or something half. */
static bool put_in_place(int tree)
{
	return syscall(SYS_move_mount, tree, "", AT_FDCWD, DIRECTORY, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) == 0
		&& syscall(SYS_umount2, DIRECTORY, MNT_DETACH) == 0;
}

static void remove_contents(int directory, unsigned depth);

static void remove_entry(int directory, const char *name, unsigned depth)
{
	if (unlinkat(directory, name, 0) == 0 || errno != EISDIR)
		return;
	int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (below >= 0) {
		remove_contents(below, depth + 1);
		close(below);
	}
	unlinkat(directory, name, AT_REMOVEDIR);
}

static void remove_contents(int directory, unsigned depth)
{
	_Alignas(struct dirent) char entries[1024];
	long size;
	if (depth > DEPTH_MAX)
		return;
	while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
		for (long at = 0; at < size;) {
			const struct dirent *entry = (const void *)(entries + at);
			at += entry->d_reclen;
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
				remove_entry(directory, entry->d_name, depth);
		}
	}
}

/*
 * The files of the start lie in the initramfs, in the directory beneath the mounts at DIRECTORY. A copy of the mount
 * around it shows that directory, and goes with its descriptor.
 */
static void remove_files_of_the_start(void)
{
	int around = copy_of_mount("/run/appliance");
	int directory = around < 0 ? -1 : openat(around, "config", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory >= 0) {
		remove_contents(directory, 0);
		close(directory);
	}
	if (around >= 0)
		close(around);
}

static void forget_previous(void)
{
	if (previous >= 0)
		close(previous);
	previous = -1;
}

bool configuration_take(char *reason, size_t size)
{
	const struct reason why = {reason, size};
	int tree = make_tmpfs();
	if (tree < 0)
		return refuse(&why, "cannot make a place for the new configuration: %s", strerror(errno));
	bool taken = false;
	if (extract_disk(tree, &why)) {
		forget_previous();
		previous = copy_of_mount(DIRECTORY);
		taken = previous >= 0 && make_read_only(tree) && put_in_place(tree);
		if (!taken)
			refuse(&why, "cannot put the new configuration in place: %s", strerror(errno));
	}
	close(tree);
	return taken;
}

void configuration_keep(void)
{
	remove_files_of_the_start();
	forget_previous();
}

bool configuration_restore(char *reason, size_t size)
{
	const struct reason why = {reason, size};
	bool restored = previous >= 0 && put_in_place(previous);
	if (!restored)
		refuse(&why, "cannot bring back the old configuration: %s", strerror(errno));
	forget_previous();
	return restored;
}
