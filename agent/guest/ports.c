/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which ports are open, from /proc/net/{tcp,udp}{,6}: no packet is sent, so a service sees no probes in its
 * log, and no fork is needed. The files stay open: reading one again is a single system call.
 */
#include "ports.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TCP_LISTEN_STATE = 0x0a };       /* include/net/tcp_states.h */

struct table {
	const char *path;
	bool only_listening;
	int fd;
};

static struct table tcp[] = {{"/proc/net/tcp", true, -1}, {"/proc/net/tcp6", true, -1}};
static struct table udp[] = {{"/proc/net/udp", false, -1}, {"/proc/net/udp6", false, -1}};

enum verdict { FOUND, NOT_HERE, NOT_IN_THE_REST };

/* Reads the hexadecimal number behind the next colon, and moves on to its end. */
static bool read_after_colon(const char **at, unsigned *number)
{
	char *end;
	const char *colon = strchr(*at, ':');
	if (colon == NULL)
		return false;
	*number = (unsigned)strtoul(colon + 1, &end, 16);
	*at = end;
	return true;
}

/* "   0: 0100007F:0035 00000000:0000 0A …": slot, local address:port, remote address:port, state. */
static enum verdict judge(const struct table *table, const char *line, unsigned port)
{
	unsigned address, local, remote;
	if (!read_after_colon(&line, &address) || !read_after_colon(&line, &local) || !read_after_colon(&line, &remote))
		return NOT_HERE;            /* the heading */
	if (table->only_listening && strtoul(line, NULL, 16) != TCP_LISTEN_STATE)
		return NOT_IN_THE_REST;     /* listening sockets come first: net/ipv4/tcp_ipv4.c, tcp_seq_start() */
	return local == port ? FOUND : NOT_HERE;
}

static bool search(struct table *table, unsigned port)
{
	char text[2048 + 1];
	size_t kept = 0;                    /* of a line not yet complete */
	off_t offset = 0;
	ssize_t count;
	while ((count = pread(table->fd, text + kept, sizeof text - 1 - kept, offset)) > 0) {
		char *line = text;
		char *end;
		offset += count;
		text[kept + (size_t)count] = '\0';
		while ((end = strchr(line, '\n')) != NULL) {
			*end = '\0';
			enum verdict verdict = judge(table, line, port);
			if (verdict != NOT_HERE)
				return verdict == FOUND;
			line = end + 1;
		}
		kept = strlen(line);
		memmove(text, line, kept);
	}
	return false;
}

static bool any(struct table tables[2], unsigned port)
{
	for (int i = 0; i < 2; i++) {
		if (tables[i].fd < 0)
			tables[i].fd = open(tables[i].path, O_RDONLY | O_CLOEXEC);
		if (tables[i].fd >= 0 && search(&tables[i], port))
			return true;
	}
	return false;
}

const struct plan_ready *ports_first_closed(const struct plan *plan)
{
	for (size_t i = 0; i < plan->ready_count; i++) {
		const struct plan_ready *ready = &plan->ready[i];
		if ((ready->kind == READY_TCP && !any(tcp, ready->port))
		    || (ready->kind == READY_UDP && !any(udp, ready->port)))
			return ready;
	}
	return NULL;
}

const char *ports_describe(const struct plan_ready *closed, char *text, size_t size)
{
	snprintf(text, size, "nothing is bound to port %u/%s", closed->port, closed->kind == READY_TCP ? "tcp" : "udp");
	return text;
}
