/* SPDX-License-Identifier: Apache-2.0 */
/* Why something cannot be, for a caller that says so to somebody. */
#ifndef APPLIANCE_REASON_H
#define APPLIANCE_REASON_H

#include <stdbool.h>
#include <stddef.h>

struct reason {
	char *text;
	size_t size;
};

/* Writes the reason down. Returns false, for the caller to return. */
bool refuse(const struct reason *reason, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
