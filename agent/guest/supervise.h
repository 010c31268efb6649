/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_SUPERVISE_H
#define APPLIANCE_SUPERVISE_H

#include "plan.h"

#include <stdint.h>

/*
 * Runs prepare and check, starts the service, tells the host when it is ready and as long as it is
 * healthy, and ends the guest with it. `init_started_us` is by clock_us(), for the summary of the start.
 */
_Noreturn void supervise(const struct plan *plan, int64_t init_started_us);

#endif
