/* SPDX-License-Identifier: Apache-2.0 */
#include "mounts.h"

#include "finish.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IMAGE_DEVICE "/dev/ubda"
#define DATA_DEVICE "/dev/ubdb"
#define TOOLS_DEVICE "/dev/ubdc"
#define TOOLS_DIRECTORY "/run/appliance/bin"
#define IMAGE_ROOT "/image"             /* where the image is mounted before it becomes / */

/* <linux/mount.h> cannot be had beside <sys/mount.h>. */
#ifndef BLKRASET
#define BLKRASET _IO(0x12, 98)
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x4
#endif

enum {
	SKELETON_DEPTH_MAX = 8,
	EROFS_MAGIC_OFFSET = 1024,
};

static const char *data_target;         /* of the mounted data volume */

static void mount_or_fail(const char *source, const char *target, const char *type, unsigned long flags,
	const char *options)
{
	if (mount(source, target, type, flags, options) < 0)
		fail(EXIT_IMAGE, "cannot mount %s on %s: %s", type ? type : source, target, strerror(errno));
}

void mount_kernel_filesystems(void)
{
	mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_or_fail("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
}

/*
 * Whatever a program touches, the kernel reads 128 kB around it. Here that filled the memory of a guest with pages that
 * nobody asked for, and threw out others that were read again; and reading from the host's page cache is no wait that
 * reading ahead could hide.
 */
static int open_without_readahead(const char *device)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, BLKRASET, 0UL) < 0)
		log_print(LOG_WARNING, "cannot switch off readahead of %s: %s", device, strerror(errno));
	return fd;
}

/* Probing here costs one read, and spares the kernel's complaints about the type that it is not. */
static const char *image_type(void)
{
	static const char squashfs[] = {'h', 's', 'q', 's'};
	static const char erofs[] = {'\xe2', '\xe1', '\xf5', '\xe0'};
	char head[EROFS_MAGIC_OFFSET + sizeof erofs];
	int fd = open_without_readahead(IMAGE_DEVICE);
	if (fd < 0)
		fail(EXIT_IMAGE, "cannot open the image: %s: %s", IMAGE_DEVICE, strerror(errno));
	ssize_t size = pread(fd, head, sizeof head, 0);
	if (size < 0)
		fail(EXIT_IMAGE, "cannot read the image: %s: %s", IMAGE_DEVICE, strerror(errno));
	close(fd);
	if (size == (ssize_t)sizeof head && memcmp(head, squashfs, sizeof squashfs) == 0)
		return "squashfs";
	if (size == (ssize_t)sizeof head && memcmp(head + EROFS_MAGIC_OFFSET, erofs, sizeof erofs) == 0)
		return "erofs";
	fail(EXIT_IMAGE, "the image is neither squashfs nor erofs");
}

static void move_into_image(const char *target)
{
	char inside[64];
	snprintf(inside, sizeof inside, IMAGE_ROOT "%s", target);
	if (mount(target, inside, NULL, MS_MOVE, NULL) < 0)
		fail(EXIT_IMAGE, "cannot move %s into the image: %s", target, strerror(errno));
}

/* The initramfs cannot be unmounted or pivoted away from: the image is moved over it instead. */
static void become_root(void)
{
	if (chdir(IMAGE_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		fail(EXIT_IMAGE, "cannot make the image the root directory: %s", strerror(errno));
}

static void copy_directories(int from, int to, unsigned depth);

static void copy_directory(int from, int to, const char *name, unsigned depth)
{
	struct stat status;
	int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (source < 0 || fstat(source, &status) < 0 || mkdirat(to, name, 0700) < 0)
		fail(EXIT_IMAGE, "cannot copy the directory %s to a tmpfs: %s", name, strerror(errno));
	int target = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (target < 0 || fchown(target, status.st_uid, status.st_gid) < 0
	    || fchmod(target, status.st_mode & 07777) < 0)
		fail(EXIT_IMAGE, "cannot copy the directory %s to a tmpfs: %s", name, strerror(errno));
	copy_directories(source, target, depth + 1);
	close(target);
	close(source);
}

/*
 * The directories (and nothing else) beneath a tmpfs are made anew on it, so that /run/nsd is there
 * with the owner that the image gave it.
 */
static void copy_directories(int from, int to, unsigned depth)
{
	_Alignas(struct dirent) char entries[1024];
	long size;
	if (depth > SKELETON_DEPTH_MAX)
		return;
	while ((size = syscall(SYS_getdents64, from, entries, sizeof entries)) > 0) {
		for (long at = 0; at < size;) {
			const struct dirent *entry = (const void *)(entries + at);
			at += entry->d_reclen;
			if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
				copy_directory(from, to, entry->d_name, depth);
		}
	}
	if (size < 0)
		fail(EXIT_IMAGE, "cannot read a directory of the image: %s", strerror(errno));
}

/* Owner, group and mode are those of the directory beneath. */
static void mount_tmpfs(const char *path)
{
	char options[96];
	struct stat status;
	int beneath = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (beneath < 0 || fstat(beneath, &status) < 0)
		fail(EXIT_IMAGE, "the image has no directory %s: %s", path, strerror(errno));
	snprintf(options, sizeof options, "mode=%04o,uid=%u,gid=%u", (unsigned)status.st_mode & 07777,
		(unsigned)status.st_uid, (unsigned)status.st_gid);
	mount_or_fail("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options);
	int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		fail(EXIT_IMAGE, "cannot open %s: %s", path, strerror(errno));
	copy_directories(beneath, top, 0);
	close(top);
	close(beneath);
}

static bool always_tmpfs(const char *path)
{
	return strcmp(path, "/run") == 0 || strcmp(path, "/tmp") == 0;
}

static void mount_tmpfs_of(const struct plan *plan)
{
	mount_tmpfs("/run");
	mount_tmpfs("/tmp");
	for (size_t i = 0; i < plan->tmpfs.count; i++)
		if (!always_tmpfs(plan->tmpfs.item[i]))
			mount_tmpfs(plan->tmpfs.item[i]);
}

static void populate_dev(void)
{
	static const struct { const char *target, *path; } links[] = {
		{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"},
	};
	if (mkdir("/dev/pts", 0755) < 0 || mkdir("/dev/shm", 0755) < 0)
		fail(EXIT_RUNTIME, "cannot populate /dev: %s", strerror(errno));
	mount_or_fail("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
	mount_or_fail("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
		if (symlink(links[i].target, links[i].path) < 0)
			fail(EXIT_RUNTIME, "cannot make %s: %s", links[i].path, strerror(errno));
}

/*
 * /appliance of the initramfs, with the administrator's files in config/, is what the image sees as
 * /run/appliance. It is a detached copy of the mount, since the initramfs cannot be reached by a path once the
 * image is the root.
 */
static void attach_runtime(int tree)
{
	if (mkdir("/run/appliance", 0755) < 0 && errno != EEXIST)
		fail(EXIT_IMAGE, "cannot make /run/appliance: %s", strerror(errno));
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/run/appliance", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		fail(EXIT_RUNTIME, "cannot mount /run/appliance: %s", strerror(errno));
	close(tree);
	mount_or_fail("/run/appliance/config", "/run/appliance/config", NULL, MS_BIND, NULL);
	mount_or_fail("/run/appliance/config", "/run/appliance/config", NULL,
		MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/*
 * busybox comes on a disk of its own: a guest that never runs it then holds none of it in memory, and all
 * guests share the pages on the host. In the initramfs it cost each guest 5 MB and 6 ms of boot.
 */
static void attach_tools(void)
{
	int fd = open_without_readahead(TOOLS_DEVICE);
	if (fd < 0)
		fail(EXIT_RUNTIME, "cannot open the tools: %s: %s", TOOLS_DEVICE, strerror(errno));
	if (mount(TOOLS_DEVICE, TOOLS_DIRECTORY, "squashfs", MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) < 0)
		fail(EXIT_RUNTIME, "cannot mount the tools: %s", strerror(errno));
	close(fd);
}

void mount_image(const struct plan *plan)
{
	const char *type = image_type();
	if (mount(IMAGE_DEVICE, IMAGE_ROOT, type, MS_RDONLY | MS_NODEV, NULL) < 0)
		fail(EXIT_IMAGE, "cannot mount the image (%s): %s", type, strerror(errno));
	int runtime = (int)syscall(SYS_open_tree, AT_FDCWD, "/appliance", OPEN_TREE_CLONE | O_CLOEXEC);
	if (runtime < 0)
		fail(EXIT_RUNTIME, "cannot open /appliance: %s", strerror(errno));
	move_into_image("/dev");
	move_into_image("/proc");
	become_root();
	mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	populate_dev();
	mount_tmpfs_of(plan);
	attach_runtime(runtime);
	attach_tools();
}

void cover_file(const char *source, const char *target)
{
	struct stat status;
	if (lstat(target, &status) < 0 || !S_ISREG(status.st_mode))
		return;
	mount_or_fail(source, target, NULL, MS_BIND, NULL);
}

/* A fresh volume belongs to root: its top directory takes owner, group and mode of the mount point. */
static void adopt(const char *target, const struct stat *beneath)
{
	struct stat top;
	if (stat(target, &top) < 0)
		fail(EXIT_DATA_VOLUME, "cannot read %s: %s", target, strerror(errno));
	if ((top.st_uid != beneath->st_uid || top.st_gid != beneath->st_gid)
	    && chown(target, beneath->st_uid, beneath->st_gid) < 0)
		fail(EXIT_DATA_VOLUME, "cannot change the owner of %s: %s", target, strerror(errno));
	if (top.st_mode != beneath->st_mode && chmod(target, beneath->st_mode & 07777) < 0)
		fail(EXIT_DATA_VOLUME, "cannot change the mode of %s: %s", target, strerror(errno));
}

void mount_data(const char *target)
{
	struct stat beneath;
	if (stat(target, &beneath) < 0 || !S_ISDIR(beneath.st_mode))
		fail(EXIT_DATA_VOLUME, "the image has no directory %s for the data volume", target);
	if (mount(DATA_DEVICE, target, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, NULL) < 0)
		fail(EXIT_DATA_VOLUME, "cannot mount the data volume on %s: %s", target, strerror(errno));
	data_target = target;
	adopt(target, &beneath);
}

void mounts_release(void)
{
	if (data_target == NULL)
		return;
	if (umount2(data_target, 0) == 0)
		return;
	log_print(LOG_WARNING, "cannot unmount the data volume: %s, remounting it read-only", strerror(errno));
	if (mount(NULL, data_target, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		log_print(LOG_ERR, "cannot remount the data volume read-only: %s", strerror(errno));
	sync();
}
