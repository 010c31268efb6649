/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256, FIPS 180-4. For files of some megabytes, of which one is hashed when its stamp does not fit. */
#ifndef APPLIANCE_SHA256_H
#define APPLIANCE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BLOCK = 64, SHA256_HEX = 2 * 32 + 1 };

struct sha256 {
	uint32_t hash[8];
	uint64_t bytes;                     /* so far */
	unsigned char block[SHA256_BLOCK];  /* begun */
};

void sha256_begin(struct sha256 *state);
void sha256_add(struct sha256 *state, const void *bytes, size_t size);

/* The digest in hexadecimal, with its final zero. */
void sha256_end(struct sha256 *state, char hex[SHA256_HEX]);

#endif
