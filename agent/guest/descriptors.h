/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_DESCRIPTORS_H
#define APPLIANCE_DESCRIPTORS_H

/* Blocks SIGCHLD, SIGINT (the host's ctrl-alt-del) and SIGTERM, and returns a signalfd(2) for them. */
int descriptors_open_signals(void);

/* A datagram socket at `path`, to which everybody in the guest may write. */
int descriptors_open_socket(const char *path);

#endif
