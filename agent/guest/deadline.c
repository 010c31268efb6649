/* SPDX-License-Identifier: Apache-2.0 */
#include "deadline.h"

#include "clock.h"

/* 0 is the start of the kernel: no deadline is as early, so it stands for none. */
static struct {
	int64_t now_us;
	int64_t at_us[DEADLINES];
} state;

void deadline_wake(void)
{
	state.now_us = clock_us();
}

void deadline_set(enum deadline deadline, unsigned delay_ms)
{
	state.at_us[deadline] = state.now_us + (int64_t)delay_ms * 1000;
}

void deadline_clear(enum deadline deadline)
{
	state.at_us[deadline] = 0;
}

bool deadline_take(enum deadline deadline)
{
	if (state.at_us[deadline] == 0 || state.at_us[deadline] > state.now_us)
		return false;
	deadline_clear(deadline);
	return true;
}

int deadline_timeout_ms(void)
{
	int64_t nearest_us = INT64_MAX;
	for (int i = 0; i < DEADLINES; i++)
		if (state.at_us[i] != 0 && state.at_us[i] < nearest_us)
			nearest_us = state.at_us[i];
	if (nearest_us == INT64_MAX)
		return -1;
	int64_t left_us = nearest_us - clock_us();
	return left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
}
