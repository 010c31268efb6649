/* SPDX-License-Identifier: Apache-2.0 */
#include "newc.h"

#include <string.h>

enum { FIELD_DIGITS = 8 };

/* In the order in which they stand behind the magic. */
enum field {
	INODE, MODE, UID, GID, LINKS, TIME, SIZE, MAJOR, MINOR, DEVICE_MAJOR, DEVICE_MINOR, NAME_SIZE, CHECKSUM, FIELDS,
};

static const char magic[] = {'0', '7', '0', '7', '0', '1'};

_Static_assert(NEWC_HEADER_BYTES == sizeof magic + FIELDS * FIELD_DIGITS, "the header is magic and fields");

static bool read_digit(char digit, uint32_t *value)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *found = digit != '\0' ? strchr(digits, digit) : NULL;
	if (found == NULL)
		return false;
	*value = *value << 4 | (uint32_t)((found - digits) & 0xf);
	return true;
}

static bool read_field(const char *header, enum field field, uint32_t *value)
{
	const char *digits = header + sizeof magic + (size_t)field * FIELD_DIGITS;
	*value = 0;
	for (int i = 0; i < FIELD_DIGITS; i++)
		if (!read_digit(digits[i], value))
			return false;
	return true;
}

bool newc_read_header(const char header[NEWC_HEADER_BYTES], struct newc_entry *entry)
{
	return memcmp(header, magic, sizeof magic) == 0
		&& read_field(header, MODE, &entry->mode)
		&& read_field(header, SIZE, &entry->size)
		&& read_field(header, NAME_SIZE, &entry->name_size)
		&& entry->name_size >= 1 && entry->name_size <= NEWC_NAME_MAX;
}

bool newc_is_trailer(const char *name)
{
	return strcmp(name, "TRAILER!!!") == 0;
}

bool newc_is_plain_path(const char *name)
{
	for (;;) {
		size_t length = strcspn(name, "/");
		if (length == 0 || (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (name[length] == '\0')
			return true;
		name += length + 1;
	}
}
