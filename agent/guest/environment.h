/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_ENVIRONMENT_H
#define APPLIANCE_ENVIRONMENT_H

#include "plan.h"

enum { ENVIRONMENT_MAX = PLAN_LIST_MAX + 4 };

/*
 * The environment of every command: the plan's, and the defaults that it does not set. `notify_socket` may
 * be NULL. The strings live as long as the plan and the program.
 */
void environment_make(const struct plan *plan, const char *notify_socket, char *environment[ENVIRONMENT_MAX + 1]);

#endif
