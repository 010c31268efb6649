/* SPDX-License-Identifier: Apache-2.0 */
#include "image.h"

#include "refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STAMP_MAX = 128, HEX_MAX = 2 * SHA256_DIGEST_LENGTH + 1 };

static long long nanoseconds(const struct timespec *time)
{
	return time->tv_sec * 1000000000LL + time->tv_nsec;
}

/* The line that agent/host/store.py writes for a file in this state. */
static void describe(const struct stat *status, char stamp[STAMP_MAX])
{
	snprintf(stamp, STAMP_MAX, "%llu %lld %lld %lld", (unsigned long long)status->st_ino, (long long)status->st_size,
		nanoseconds(&status->st_mtim), nanoseconds(&status->st_ctim));
}

/* Reads the file `verified` beside the image; empty where there is none. */
static void read_stamp(const char *image, char stamp[STAMP_MAX])
{
	char path[PATH_MAX];
	int directory = (int)(strrchr(image, '/') - image);
	snprintf(path, sizeof path, "%.*s/verified", directory, image);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? 0 : read(fd, stamp, STAMP_MAX - 1);
	stamp[size < 0 ? 0 : size] = '\0';
	stamp[strcspn(stamp, "\n")] = '\0';
	close(fd);
}

static bool proven_before(int fd, const char *image)
{
	struct stat status;
	char now[STAMP_MAX], then[STAMP_MAX];
	if (fstat(fd, &status) < 0)
		return false;
	describe(&status, now);
	read_stamp(image, then);
	return strcmp(now, then) == 0;
}

static void hash(int fd, const char *path, char hex[HEX_MAX])
{
	static unsigned char block[64 * 1024];
	unsigned char digest[SHA256_DIGEST_LENGTH];
	SHA2_CTX state;
	ssize_t size;
	SHA256Init(&state);
	while ((size = read(fd, block, sizeof block)) > 0)
		SHA256Update(&state, block, (size_t)size);
	if (size < 0)
		refuse(EXIT_CONFIG, "image %s: %s", path, strerror(errno));
	SHA256Final(digest, &state);
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void check_image(const char *digest, const char *path)
{
	char found[HEX_MAX];
	if (path[0] != '/')
		refuse(EXIT_CONFIG, "launch plan: %s is no path of an image", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		refuse(EXIT_CONFIG, "image %s: %s", path, strerror(errno));
	if (!proven_before(fd, path)) {
		hash(fd, path, found);
		if (strcmp(found, digest) != 0)
			refuse(EXIT_CONFIG, "image %s is damaged: its content no longer has the digest sha256:%s", path, digest);
	}
	close(fd);
}
