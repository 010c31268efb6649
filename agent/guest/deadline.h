/* SPDX-License-Identifier: Apache-2.0 */
/* Points in time at which something is due. They are plain numbers, of which the nearest becomes the timeout of
 * epoll_wait(2): that costs no further system calls, as timers would. */
#ifndef APPLIANCE_DEADLINE_H
#define APPLIANCE_DEADLINE_H

#include <stdbool.h>

enum deadline { READY_TIMEOUT, READY_POLL, HEALTH_INTERVAL, PROBE_TIMEOUT, STOP_TIMEOUT, DEADLINES };

/* Takes the time that all others here go by until the next call; also to begin with. */
void deadline_wake(void);

void deadline_set(enum deadline deadline, unsigned delay_ms);
void deadline_clear(enum deadline deadline);

/* Whether it has passed; it is then cleared. */
bool deadline_take(enum deadline deadline);

/* Until the nearest one, rounded up so as not to wake a moment too early and spin; -1 if there is none. */
int deadline_timeout_ms(void);

#endif
