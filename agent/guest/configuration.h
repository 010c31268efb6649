/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The administrator's files at /run/appliance/config, and how a new set of them takes their place in a running guest.
 *
 * The host brings it on a disk (delivery.h). Each set after the first lies on a tmpfs of its own, so that its memory is
 * given back with the last open file of it. Sets are exchanged by their mounts: whoever opens a path gets the files of
 * the one or of the other.
 */
#ifndef APPLIANCE_CONFIGURATION_H
#define APPLIANCE_CONFIGURATION_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Makes the files on the disk those at /run/appliance/config. If that cannot be, nothing is changed, and `reason` says
 * why. What was there is kept until one of the next two is called.
 */
bool configuration_take(char *reason, size_t size);

/* The new files stay, the old ones are given back. */
void configuration_keep(void);

/* The old files come back, the new ones are given back. */
bool configuration_restore(char *reason, size_t size);

#endif
