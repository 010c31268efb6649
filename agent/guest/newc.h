/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives in cpio's `newc` format, as the kernel's initramfs has them
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Pure: what is read from where is the caller's business.
 */
#ifndef APPLIANCE_NEWC_H
#define APPLIANCE_NEWC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NEWC_HEADER_BYTES = 110,
	NEWC_ALIGNMENT = 4,         /* of what follows a name, and of the next header */
	NEWC_NAME_MAX = 1024,       /* the NUL included */
};

struct newc_entry {
	uint32_t mode;              /* with the file type, as in stat(2) */
	uint32_t size;              /* of the contents, which follow the name */
	uint32_t name_size;         /* the NUL included; 1 to NEWC_NAME_MAX */
};

/* Returns false where the bytes are no header. */
bool newc_read_header(const char header[NEWC_HEADER_BYTES], struct newc_entry *entry);

/* The name of the entry behind the last one. */
bool newc_is_trailer(const char *name);

/* Whether `name` is a relative path that stays below where it begins: no empty component, no `.` and no `..`. */
bool newc_is_plain_path(const char *name);

#endif
