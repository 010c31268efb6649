/* SPDX-License-Identifier: Apache-2.0 */
#include "configuration.h"

#include "delivery.h"
#include "newc.h"
#include "reason.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIRECTORY "/run/appliance/config"
#define PREFIX "appliance/config/"      /* of the names in the archive */

/* <sys/mount.h> cannot be had beside <linux/mount.h>, and that of a build host may be older than our kernel. */
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200        /* Linux 6.5 */
#endif

enum { DEPTH_MAX = 32 };

/* A mount that is attached nowhere, with the files that were at DIRECTORY before; -1: none. */
static int previous = -1;

/* --- files ------------------------------------------------------------------------------------------ */

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

static bool copy_contents(struct archive *archive, int file)
{
	while (archive->left > 0) {
		size_t size;
		const char *bytes = archive_take_some(archive, &size);
		if (bytes == NULL)
			return false;
		if (!store(file, bytes, size))
			return refuse(archive->reason, "cannot store the new configuration: %s", strerror(errno));
	}
	return true;
}

static bool copy_file(struct archive *archive, int top, const char *path)
{
	int file = openat(top, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0)
		return refuse(archive->reason, "cannot store the new file %s: %s", path, strerror(errno));
	bool copied = copy_contents(archive, file);
	close(file);
	return copied;
}

static bool make_directory(struct archive *archive, int top, const char *path)
{
	return mkdirat(top, path, 0755) == 0
		|| refuse(archive->reason, "cannot make the new directory %s: %s", path, strerror(errno));
}

/*
 * Entries are directories and regular files with plain names, and nothing else: without links there is no way out of
 * `top`. What is beside the configuration was for the start.
 */
static bool extract_entry(struct archive *archive, int top)
{
	const char *name = archive->name;
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
		return true;
	const char *path = name + sizeof PREFIX - 1;
	if (!newc_is_plain_path(path))
		return refuse(archive->reason, "the new configuration has a file that is not allowed: %s", name);
	if (S_ISDIR(archive->entry.mode))
		return make_directory(archive, top, path);
	if (S_ISREG(archive->entry.mode))
		return copy_file(archive, top, path);
	return refuse(archive->reason, "the new configuration has something that is no file: %s", name);
}

static bool extract(struct archive *archive, int top)
{
	for (;;) {
		if (!archive_next(archive))
			return false;
		if (archive_ended(archive))
			return true;
		/* It would be a configuration without files. */
		if (delivery_begins_with_names(archive))
			return refuse(archive->reason, "the disk with the new configuration was taken away");
		if (!extract_entry(archive, top))
			return false;
	}
}

static bool extract_disk(int top, const struct reason *reason)
{
	struct archive *archive = delivery_open(reason);
	if (archive == NULL)
		return false;
	bool extracted = extract(archive, top);
	delivery_close(archive);
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
