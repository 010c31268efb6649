/* SPDX-License-Identifier: Apache-2.0 */
#include "environment.h"

#include <stdio.h>
#include <string.h>

/* busybox comes last: an image's own tools win. */
static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/appliance/bin";
static char home[] = "HOME=/";
static char lang[] = "LANG=C.UTF-8";
static char notify[128];

static bool plan_sets(const struct plan *plan, const char *assignment)
{
	size_t name = strcspn(assignment, "=") + 1;
	for (size_t i = 0; i < plan->environment.count; i++)
		if (strncmp(plan->environment.item[i], assignment, name) == 0)
			return true;
	return false;
}

void environment_make(const struct plan *plan, const char *notify_socket, char *environment[ENVIRONMENT_MAX + 1])
{
	char *const defaults[] = {path, home, lang, notify_socket != NULL ? notify : NULL};
	size_t count = 0;
	if (notify_socket != NULL)
		snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", notify_socket);
	for (size_t i = 0; i < plan->environment.count; i++)
		environment[count++] = plan->environment.item[i];
	for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
		if (defaults[i] != NULL && !plan_sets(plan, defaults[i]))
			environment[count++] = defaults[i];
	environment[count] = NULL;
}
