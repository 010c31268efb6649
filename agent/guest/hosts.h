/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /run/appliance/hosts: the guest's own lines, then the names of other appliances as the host last brought them
 * (delivery.h). It is one file for as long as the guest lives, since /etc/hosts may be a mount of it. Its readers find
 * the own lines at every moment, whatever becomes of the names.
 */
#ifndef APPLIANCE_HOSTS_H
#define APPLIANCE_HOSTS_H

#include <stddef.h>

/* Makes the file, with these lines and with the names that were brought for the start, if any. */
void hosts_configure(const char *own, size_t size);

/* The names on the disk take the place of those that are there. If they cannot be had, these stay, and the log says why. */
void hosts_take(void);

#endif
