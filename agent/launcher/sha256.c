/* SPDX-License-Identifier: Apache-2.0 */
#include "sha256.h"

#include <stdio.h>
#include <string.h>

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2). */
static const uint32_t constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t value, unsigned count)
{
	return value >> count | value << (32 - count);
}

static uint32_t big_endian(const unsigned char *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* The message schedule (6.2.2, step 1). */
static void expand(const unsigned char *block, uint32_t words[64])
{
	for (int i = 0; i < 16; i++)
		words[i] = big_endian(block + 4 * i);
	for (int i = 16; i < 64; i++) {
		uint32_t a = words[i - 15], b = words[i - 2];
		words[i] = words[i - 16] + words[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3)
			+ (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
	}
}

static void compress(uint32_t hash[8], const unsigned char *block)
{
	uint32_t words[64];
	uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
	expand(block, words);
	for (int i = 0; i < 64; i++) {
		uint32_t choice = (e & f) ^ (~e & g);
		uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
		uint32_t first = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + constants[i] + words[i];
		uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;
		h = g;
		g = f;
		f = e;
		e = d + first;
		d = c;
		c = b;
		b = a;
		a = first + second;
	}
	const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
	for (int i = 0; i < 8; i++)
		hash[i] += sums[i];
}

void sha256_begin(struct sha256 *state)
{
	/* Likewise, of the square roots of the first eight primes (5.3.3). */
	*state = (struct sha256){.hash = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}};
}

void sha256_add(struct sha256 *state, const void *bytes, size_t size)
{
	const unsigned char *from = bytes;
	while (size > 0) {
		size_t begun = state->bytes % SHA256_BLOCK;
		size_t part = size < SHA256_BLOCK - begun ? size : SHA256_BLOCK - begun;
		memcpy(state->block + begun, from, part);
		state->bytes += part;
		from += part;
		size -= part;
		if (begun + part == SHA256_BLOCK)
			compress(state->hash, state->block);
	}
}

/* A one bit, zeros, and the length in bits at the end of a block (5.1.1). */
static void pad(struct sha256 *state)
{
	static const unsigned char padding[SHA256_BLOCK] = {0x80};
	unsigned char length[8];
	uint64_t bits = state->bytes * 8;
	for (int i = 0; i < 8; i++)
		length[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_add(state, padding, 1 + (2 * SHA256_BLOCK - 9 - state->bytes % SHA256_BLOCK) % SHA256_BLOCK);
	sha256_add(state, length, sizeof length);
}

void sha256_end(struct sha256 *state, char hex[SHA256_HEX])
{
	pad(state);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", (unsigned)state->hash[i]);
}
