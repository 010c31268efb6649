/* SPDX-License-Identifier: Apache-2.0 */
#include "reload.h"

#include "clock.h"
#include "configuration.h"
#include "deadline.h"
#include "guest.h"
#include "log.h"
#include "ports.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { UNDO_TIMEOUT_MS = 10000 };       /* beside ready-timeout; the host allows for 15 s more than that */

enum stage { NONE, AGAIN_PREPARING, AGAIN_CHECKING, TELLING, CONFIRMING };

static struct {
	enum stage stage;
	bool wanted;                        /* a disk has come that was not looked at */
	bool undoing;                       /* the old files are back */
	bool told;                          /* the service knows of new files */
	bool probe_is_older;                /* the one that runs was begun before the service was told */
	char failure[REASON_MAX];           /* why undoing */
	struct { int64_t begin, files, prepare, check; } at_us;
} reload;

static void begin(void);
static void prepare(void);

static void end(void)
{
	reload.stage = NONE;
	guest.reason[0] = '\0';
	deadline_clear(READY_TIMEOUT);
	deadline_clear(READY_POLL);
	if (reload.failure[0] != '\0')
		notify_send("READY=1\nSTATUS=reload failed: %s", reload.failure);
	else
		guest_announce_running("READY=1\n");
	if (reload.wanted)
		begin();
}

static void succeed(void)
{
	int64_t now_us = clock_us();
	configuration_keep();
	log_print(LOG_INFO, "reloaded in %.1f ms: files %.1f, prepare %.1f, check %.1f, %s %.1f",
		clock_ms(reload.at_us.begin, now_us), clock_ms(reload.at_us.begin, reload.at_us.files),
		clock_ms(reload.at_us.files, reload.at_us.prepare), clock_ms(reload.at_us.prepare, reload.at_us.check),
		guest.name, clock_ms(reload.at_us.check, now_us));
	end();
}

static void keep_failure(const char *what, const char *reason)
{
	snprintf(reload.failure, sizeof reload.failure, "%s%s", what, reason);
	log_print(LOG_ERR, "reload failed: %s", reload.failure);
}

/* The old files worked before, so nothing but the time limit keeps the way back from being like the way there. */
static void undo(void)
{
	char reason[REASON_MAX];
	reload.undoing = true;
	notify_send("STATUS=reloading: back to the old configuration");
	deadline_clear(READY_POLL);
	deadline_set(READY_TIMEOUT, UNDO_TIMEOUT_MS);
	if (!configuration_restore(reason, sizeof reason))
		log_print(LOG_ERR, "%s", reason);
	prepare();
}

static void fail_reload(const char *what, const char *reason)
{
	if (!reload.undoing) {
		keep_failure(what, reason);
		undo();
		return;
	}
	log_print(LOG_ERR, "back at the old configuration, but %s%s", what, reason);
	end();
}

static void confirmed(void)
{
	guest.unhealthy = false;
	if (reload.undoing)
		end();
	else
		succeed();
}

/* As for readiness at the start, and with one health check that began after the service was told. */
static void confirm(void)
{
	char reason[REASON_MAX];
	deadline_clear(READY_POLL);
	if (guest.probe.pid != 0)
		return;                     /* it still runs */
	const struct plan_ready *closed = ports_first_closed(guest.plan);
	if (closed != NULL)
		guest_poll_again(READY_POLL_MS, ports_describe(closed, reason, sizeof reason));
	else if (guest.plan->health.count == 0)
		confirmed();
	else if (!guest_start_probe(&guest.plan->health, reason))
		guest_poll_again(READY_EXEC_POLL_MS, reason);
}

static void begin_to_confirm(void)
{
	reload.stage = CONFIRMING;
	reload.probe_is_older = guest.probe.pid != 0;
	confirm();
}

static void tell(void)
{
	char reason[REASON_MAX];
	reload.stage = TELLING;
	reload.told = true;
	if (!reload.undoing)
		notify_send("STATUS=reloading: %s", guest.name);
	if (guest.plan->reload.count == 0) {
		kill(guest.service, (int)guest.plan->reload_signal);
		begin_to_confirm();
	} else if (!guest_start_step(&guest.plan->reload, reason)) {
		fail_reload("", reason);
	}
}

static void checked(void)
{
	reload.at_us.check = clock_us();
	tell();
}

static void check(void)
{
	char reason[REASON_MAX];
	reload.stage = AGAIN_CHECKING;
	if (guest.plan->check.count == 0) {
		checked();
		return;
	}
	notify_send("STATUS=reloading: checking configuration");
	if (!guest_start_step(&guest.plan->check, reason))
		fail_reload("check failed: ", reason);
}

static void prepared(void)
{
	reload.at_us.prepare = clock_us();
	if (!reload.undoing)
		check();
	else if (reload.told)
		tell();
	else
		end();
}

static void prepare(void)
{
	char reason[REASON_MAX];
	reload.stage = AGAIN_PREPARING;
	if (guest.plan->prepare.count == 0)
		prepared();
	else if (!guest_start_step(&guest.plan->prepare, reason))
		fail_reload("prepare failed: ", reason);
}

static void begin(void)
{
	char reason[REASON_MAX];
	reload.wanted = reload.undoing = reload.told = false;
	reload.failure[0] = '\0';
	reload.at_us.begin = clock_us();
	notify_send("RELOADING=1\nSTATUS=reloading: preparing");
	deadline_set(READY_TIMEOUT, guest.plan->ready_timeout_ms);
	if (configuration_take(reason, sizeof reason)) {
		reload.at_us.files = clock_us();
		prepare();
	} else {
		keep_failure("", reason);
		end();
	}
}

/* --- events ----------------------------------------------------------------------------------------- */

void reload_disk_came(void)
{
	reload.wanted = true;
	if (guest.phase == RUNNING && reload.stage == NONE)
		begin();
}

void reload_service_ready(void)
{
	if (reload.wanted)
		begin();
}

bool reload_under_way(void)
{
	return reload.stage != NONE;
}

bool reload_confirming(void)
{
	return reload.stage == CONFIRMING;
}

void reload_step_ended(bool succeeded, const char *reason)
{
	switch (reload.stage) {
	case AGAIN_PREPARING:
		if (succeeded)
			prepared();
		else
			fail_reload("prepare failed: ", reason);
		break;
	case AGAIN_CHECKING:
		if (succeeded)
			checked();
		else
			fail_reload("check failed: ", reason);
		break;
	case TELLING:
		if (succeeded)
			begin_to_confirm();
		else
			fail_reload("the command to reload failed: ", reason);
		break;
	case NONE:
	case CONFIRMING:
		break;
	}
}

void reload_probe_ended(bool succeeded, const char *reason)
{
	if (reload.stage != CONFIRMING)
		return;
	bool counts = !reload.probe_is_older;
	reload.probe_is_older = false;
	if (!counts)
		confirm();
	else if (succeeded)
		confirmed();
	else
		guest_poll_again(READY_EXEC_POLL_MS, reason);
}

void reload_poll(void)
{
	if (reload.stage == CONFIRMING)
		confirm();
}

void reload_timed_out(void)
{
	char reason[REASON_MAX];
	if (guest.step.pid != 0) {
		step_kill(&guest.step, true);   /* its end is a failure */
	} else if (reload.stage == CONFIRMING) {
		snprintf(reason, sizeof reason, "%.64s did not answer as it should: %.256s", guest.name, guest.reason);
		fail_reload("", reason);
	}
}

void reload_abandon(void)
{
	reload.stage = NONE;
	reload.wanted = false;
}
