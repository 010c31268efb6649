/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_NETWORK_H
#define APPLIANCE_NETWORK_H

#include "plan.h"

/* Brings up lo and every device the plan names, with addresses and default routes. */
void network_configure(const struct plan *plan);

#endif
