/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ways out of the guest: the console, which is a stream into the host's journal, and the notify
 * line, where every write is one datagram to the host's service manager (sd_notify(3)).
 *
 * Neither ever blocks init: a console that does not drain fills a small backlog, and what does not fit
 * is counted and reported as lost.
 */
#ifndef APPLIANCE_LOG_H
#define APPLIANCE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <syslog.h>             /* LOG_ERR and its like */

/* Makes sure that 0, 1 and 2 are open and the console is raw; before the first line of output. */
void log_open(void);

/* Opens the notify line; needs /dev. Without one (ssl0=null) notifications go nowhere. */
void notify_open(void);

/* One line of init's own, with the priority prefix that journald takes. */
void log_print(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Bytes of somebody else's, unchanged. All of them or, with a full backlog, none. */
void log_write(const char *bytes, size_t size);

/* Whether output waits for the console; then log_flush() when log_fd() is writable. */
bool log_backlogged(void);
int log_fd(void);
void log_flush(void);

/* One datagram of VARIABLE=value lines. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
