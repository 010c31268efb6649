/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_PORTS_H
#define APPLIANCE_PORTS_H

#include "plan.h"

/*
 * The first `tcp` or `udp` readiness condition that does not hold, NULL if all do. A TCP port is open when a
 * socket listens on it, a UDP port when one is bound to it, at any address, IPv4 or IPv6.
 */
const struct plan_ready *ports_first_closed(const struct plan *plan);

/* "nothing is bound to port 53/udp". Returns `text`. */
const char *ports_describe(const struct plan_ready *closed, char *text, size_t size);

#endif
