/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host brings to a guest on a disk, ubdd: an archive with names (hosts.h) or with a configuration
 * (configuration.h). One with names may be there from the start; the others are plugged in while the guest runs, each
 * in place of the one before.
 */
#ifndef APPLIANCE_DELIVERY_H
#define APPLIANCE_DELIVERY_H

#include "archive.h"
#include "reason.h"

#include <stdbool.h>

/* Begins to watch for disks that come. */
void delivery_watch(void);

/* Readable when one may have come. */
int delivery_fd(void);

/* Takes in what there is to read; returns whether a disk has come, and was not taken away since. */
bool delivery_came(void);

/* Whether there is a disk. */
bool delivery_is_there(void);

/*
 * The archive on the disk, before its first entry; NULL with a reason. One at a time, and to be closed at once: the
 * host cannot take away a disk that is open.
 */
struct archive *delivery_open(const struct reason *reason);
void delivery_close(struct archive *archive);

/* Whether the entry at hand makes the archive one with names: it is the first, and their file. */
bool delivery_begins_with_names(const struct archive *archive);

/* Whether the disk has names; false also where it cannot be read. */
bool delivery_has_names(void);

#endif
