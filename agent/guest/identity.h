/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_IDENTITY_H
#define APPLIANCE_IDENTITY_H

#include "plan.h"

/*
 * Who the guest is: its name for the kernel, and hostname, hosts (hosts.h), resolv.conf and localtime in
 * /run/appliance, laid over the plain files of these names that the image may have in /etc.
 */
void identity_configure(const struct plan *plan);

#endif
