/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two kinds of descriptors that the guest's kernel inherits. systemd 253 and later opens them (OpenFile=) and hands
 * them over by name; before, they are opened here.
 */
#ifndef APPLIANCE_DESCRIPTORS_H
#define APPLIANCE_DESCRIPTORS_H

#include <stddef.h>

/* A datagram socket connected to systemd's notification socket, or -1 with errno. */
int find_notify(void);

/* The same for a start: refuses where there is none. */
int open_notify(void);

/* A descriptor attached to the tap `name`, which the agent made for this user; the `index`-th of the guest. */
int open_tap(size_t index, const char *name);

#endif
