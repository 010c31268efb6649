/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a datagram sent to /dev/log (RFC 3164 as syslog(3) writes it) to console lines that journald
 * understands: "<N>tag[pid]: message\n". Pure, so that it can be tested on the build host.
 */
#ifndef APPLIANCE_RFC3164_H
#define APPLIANCE_RFC3164_H

#include <stddef.h>

enum {
	SYSLOG_DATAGRAM_MAX = 8 * 1024,
	SYSLOG_LINE_MAX = 2 * 1024,         /* with the newline */
};

/*
 * Calls emit() once per console line. Control characters are written as \xNN; a message too long for one
 * line goes on in further lines with the same prefix, each but the last ending in "...".
 */
void syslog_translate(const char *datagram, size_t size, void (*emit)(const char *line, size_t size));

#endif
