/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_CLOCK_H
#define APPLIANCE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds since the guest's kernel started. */
static inline int64_t clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline double clock_ms(int64_t from_us, int64_t to_us)
{
	return (double)(to_us - from_us) / 1000.0;
}

#endif
