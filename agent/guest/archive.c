/* SPDX-License-Identifier: Apache-2.0 */
#include "archive.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void archive_begin(struct archive *archive, int fd, const struct reason *reason)
{
	archive->reason = reason;
	archive->fd = fd;
	archive->count = archive->left = 0;
	archive->position = archive->at = archive->filled = 0;
}

static bool fill(struct archive *archive)
{
	ssize_t count = read(archive->fd, archive->buffer, sizeof archive->buffer);
	if (count < 0)
		return refuse(archive->reason, "the archive cannot be read: %s", strerror(errno));
	if (count == 0)
		return refuse(archive->reason, "the archive is cut short");
	archive->at = 0;
	archive->filled = (size_t)count;
	return true;
}

/* The next bytes, `wanted` at most; NULL if there are none. */
static const char *next_bytes(struct archive *archive, size_t wanted, size_t *taken)
{
	if (archive->at == archive->filled && !fill(archive))
		return NULL;
	const char *bytes = archive->buffer + archive->at;
	size_t there = archive->filled - archive->at;
	*taken = wanted < there ? wanted : there;
	archive->at += *taken;
	archive->position += *taken;
	return bytes;
}

static bool take(struct archive *archive, char *bytes, size_t size)
{
	while (size > 0) {
		size_t taken;
		const char *some = next_bytes(archive, size, &taken);
		if (some == NULL)
			return false;
		memcpy(bytes, some, taken);
		bytes += taken;
		size -= taken;
	}
	return true;
}

static bool align(struct archive *archive)
{
	char padding[NEWC_ALIGNMENT];
	return take(archive, padding, (size_t)(-archive->position % NEWC_ALIGNMENT));
}

static bool skip_contents(struct archive *archive)
{
	size_t skipped;
	while (archive->left > 0)
		if (archive_take_some(archive, &skipped) == NULL)
			return false;
	return align(archive);
}

bool archive_next(struct archive *archive)
{
	char header[NEWC_HEADER_BYTES];
	struct newc_entry *entry = &archive->entry;
	if (!skip_contents(archive) || !take(archive, header, sizeof header))
		return false;
	if (!newc_read_header(header, entry))
		return refuse(archive->reason, "the archive is damaged");
	if (!take(archive, archive->name, entry->name_size) || !align(archive))
		return false;
	archive->name[entry->name_size - 1] = '\0';
	archive->left = entry->size;
	archive->count++;
	return true;
}

bool archive_ended(const struct archive *archive)
{
	return newc_is_trailer(archive->name);
}

const char *archive_take_some(struct archive *archive, size_t *taken)
{
	const char *bytes = next_bytes(archive, archive->left, taken);
	if (bytes != NULL)
		archive->left -= (uint32_t)*taken;
	return bytes;
}

bool archive_take(struct archive *archive, char *bytes)
{
	size_t size = archive->left;
	archive->left = 0;
	return take(archive, bytes, size);
}
