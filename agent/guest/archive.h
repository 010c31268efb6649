/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an archive (newc.h) from a descriptor, entry by entry, from its beginning to its end. What may be in it is for
 * the caller to judge: names, types and sizes are as they stand there.
 *
 * Where a function returns false or NULL, `reason` says why, and nothing more is to be read.
 */
#ifndef APPLIANCE_ARCHIVE_H
#define APPLIANCE_ARCHIVE_H

#include "newc.h"
#include "reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARCHIVE_READ_BYTES = 16 * 1024 };

struct archive {
	const struct reason *reason;
	unsigned count;                     /* of the entries so far, that at hand included */
	struct newc_entry entry;            /* at hand */
	char name[NEWC_NAME_MAX];
	uint32_t left;                      /* of its contents */
	/* The reader's own. */
	int fd;
	uint64_t position;                  /* of the next byte, for the alignment */
	size_t at, filled;                  /* what is not yet taken of the buffer */
	char buffer[ARCHIVE_READ_BYTES];
};

void archive_begin(struct archive *archive, int fd, const struct reason *reason);

/* Goes to the next entry, over what is left of the contents of that at hand. */
bool archive_next(struct archive *archive);

/* Whether the entry at hand is no entry, but the end. */
bool archive_ended(const struct archive *archive);

/* The next bytes of the contents, of which some must be left. */
const char *archive_take_some(struct archive *archive, size_t *taken);

/* All that is left of the contents. */
bool archive_take(struct archive *archive, char *bytes);

#endif
