/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#include "deadline.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

struct guest guest;

void guest_watch(int fd, enum source source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = source};
	if (epoll_ctl(guest.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		fail(EXIT_RUNTIME, "cannot watch a descriptor: %s", strerror(errno));
}

static bool start(struct step *step, enum source source, const struct plan_list *command, char reason[REASON_MAX])
{
	if (!step_start(step, command->item, guest.environment, source == STEP_OUTPUT)) {
		snprintf(reason, REASON_MAX, "cannot run %s: %s", command->item[0], strerror(errno));
		return false;
	}
	guest_watch(step->output, source, guest.throttled ? 0 : EPOLLIN);
	return true;
}

bool guest_start_step(const struct plan_list *command, char reason[REASON_MAX])
{
	return start(&guest.step, STEP_OUTPUT, command, reason);
}

bool guest_start_probe(const struct plan_list *command, char reason[REASON_MAX])
{
	deadline_set(PROBE_TIMEOUT, guest.plan->health_timeout_ms);
	return start(&guest.probe, PROBE_OUTPUT, command, reason);
}

void guest_poll_again(unsigned delay_ms, const char *reason)
{
	snprintf(guest.reason, sizeof guest.reason, "%s", reason);
	deadline_set(READY_POLL, delay_ms);
}

void guest_announce_running(const char *variables)
{
	notify_send("%sSTATUS=%s", variables, guest.service_status[0] ? guest.service_status : "running");
}
