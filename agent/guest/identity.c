/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include "finish.h"
#include "hosts.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DIRECTORY "/run/appliance"

/* Roomy: every line comes from the boot plan, which has PLAN_MAX_BYTES at most. */
static struct {
	char bytes[2 * PLAN_MAX_BYTES];
	size_t used;
} text;

__attribute__((format(printf, 1, 2)))
static void add(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int size = vsnprintf(text.bytes + text.used, sizeof text.bytes - text.used, format, arguments);
	va_end(arguments);
	if (size < 0 || (size_t)size >= sizeof text.bytes - text.used)
		fail(EXIT_BOOT_PLAN, "boot plan: too much text for one file");
	text.used += (size_t)size;
}

static void add_lines(const char *prefix, const struct plan_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		add("%s%s\n", prefix, list->item[i]);
}

static void write_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text.bytes, text.used) != (ssize_t)text.used)
		fail(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
	close(fd);
	text.used = 0;
}

static void write_hosts(const struct plan *plan)
{
	add("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
	add_lines("", &plan->hosts);
	hosts_configure(text.bytes, text.used);
	text.used = 0;
}

static void write_resolv_conf(const struct plan *plan)
{
	add_lines("nameserver ", &plan->nameservers);
	if (plan->search.count > 0)
		add("search");
	for (size_t i = 0; i < plan->search.count; i++)
		add(" %s", plan->search.item[i]);
	if (plan->search.count > 0)
		add("\n");
	write_file(DIRECTORY "/resolv.conf");
}

void identity_configure(const struct plan *plan)
{
	if (sethostname(plan->hostname, strlen(plan->hostname)) < 0)
		fail(EXIT_RUNTIME, "cannot set the host name: %s", strerror(errno));
	add("%s\n", plan->hostname);
	write_file(DIRECTORY "/hostname");
	write_hosts(plan);
	write_resolv_conf(plan);
	cover_file(DIRECTORY "/hostname", "/etc/hostname");
	cover_file(DIRECTORY "/hosts", "/etc/hosts");
	cover_file(DIRECTORY "/resolv.conf", "/etc/resolv.conf");
	if (access(DIRECTORY "/localtime", F_OK) == 0)
		cover_file(DIRECTORY "/localtime", "/etc/localtime");
}
