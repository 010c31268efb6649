/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a guest after its boot:
 *
 *     preparing ─► checking ─► starting ─► running ─► stopping
 *                                 every phase ─────────►
 *
 * A reload (reload.c) is a matter of the phase running.
 *
 * One epoll(7) loop. It sleeps until an event or the nearest deadline.
 */
#include "supervise.h"

#include "clock.h"
#include "deadline.h"
#include "delivery.h"
#include "descriptors.h"
#include "environment.h"
#include "finish.h"
#include "guest.h"
#include "hosts.h"
#include "log.h"
#include "ports.h"
#include "process.h"
#include "reload.h"
#include "rfc3164.h"
#include "step.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYSLOG_SOCKET "/dev/log"
#define NOTIFY_SOCKET "/run/appliance/notify"

enum {
	DATAGRAMS_PER_WAKEUP = 32,          /* a chatty service must not keep the loop from the rest */
	NOTIFY_DATAGRAM_MAX = 4096,
};

static void rewatch(int fd, enum source source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = source};
	if (epoll_ctl(guest.epoll, EPOLL_CTL_MOD, fd, &event) < 0)
		fail(EXIT_RUNTIME, "cannot watch a descriptor: %s", strerror(errno));
}

/* --- ending ----------------------------------------------------------------------------------------- */

/*
 * The service gets its signal and time; everything else is killed when it is gone, as systemd does with
 * KillMode=mixed.
 */
static void stop(enum exit_code code)
{
	guest.phase = STOPPING;
	guest.exit_code = code;
	if (guest.service == 0)
		finish(code);
	if (guest.step.pid != 0)
		step_kill(&guest.step, false);
	if (guest.probe.pid != 0)
		step_kill(&guest.probe, false);
	reload_abandon();
	kill(guest.service, (int)guest.plan->stop_signal);
	kill(guest.service, SIGCONT);
	deadline_clear(READY_TIMEOUT);
	deadline_clear(READY_POLL);
	deadline_clear(HEALTH_INTERVAL);
	deadline_clear(PROBE_TIMEOUT);
	deadline_set(STOP_TIMEOUT, guest.plan->stop_timeout_ms);
}

static void stop_for_host(void)
{
	if (guest.phase == STOPPING)
		return;
	notify_send("STOPPING=1\nSTATUS=stopping %s", guest.name);
	stop(EXIT_STOPPED);
}

static void stop_timed_out(void)
{
	log_print(LOG_WARNING, "%s did not stop within %u ms after signal %u, killing it",
		guest.name, guest.plan->stop_timeout_ms, guest.plan->stop_signal);
	finish(guest.exit_code);
}

static const char *time_of_end(void)
{
	if (guest.phase != RUNNING)
		return " before it was ready";
	return reload_under_way() ? " during a reload" : "";
}

static void service_ended(int status)
{
	char description[64];
	process_describe(status, description, sizeof description);
	if (guest.phase == STOPPING) {
		log_print(LOG_INFO, "%s stopped (%s)", guest.name, description);
		finish(guest.exit_code);
	}
	fail(EXIT_SERVICE, "%s ended%s: %s", guest.name, time_of_end(), description);
}

/* --- running ---------------------------------------------------------------------------------------- */

static void healthy(void)
{
	if (!guest.unhealthy) {
		notify_send("WATCHDOG=1");
		return;
	}
	guest.unhealthy = false;
	log_print(LOG_NOTICE, "%s is healthy again", guest.name);
	if (reload_under_way())
		notify_send("WATCHDOG=1");
	else
		guest_announce_running("WATCHDOG=1\n");
}

/* No WATCHDOG=1: when this lasts, the host's service manager restarts the guest. */
static void unhealthy(const char *reason)
{
	if (guest.unhealthy && strcmp(guest.reason, reason) == 0)
		return;
	guest.unhealthy = true;
	snprintf(guest.reason, sizeof guest.reason, "%s", reason);
	log_print(LOG_WARNING, "unhealthy: %s", reason);
	notify_send("STATUS=unhealthy: %s", reason);
}

static void check_health(void)
{
	char reason[REASON_MAX];
	deadline_set(HEALTH_INTERVAL, guest.plan->health_interval_ms);
	if (reload_confirming()) {
		/* Others are made, until a time limit. To be killed now would keep the old files from coming back. */
		notify_send("WATCHDOG=1");
		return;
	}
	if (guest.probe.pid != 0)
		return;                     /* the last check still runs */
	if (guest.plan->health.count > 0) {
		if (!guest_start_probe(&guest.plan->health, reason))
			unhealthy(reason);
		return;
	}
	const struct plan_ready *closed = ports_first_closed(guest.plan);
	if (closed == NULL)
		healthy();
	else
		unhealthy(ports_describe(closed, reason, sizeof reason));
}

/* --- starting --------------------------------------------------------------------------------------- */

static void ready(void)
{
	int64_t now_us = clock_us();
	guest.phase = RUNNING;
	guest.reason[0] = '\0';
	guest_announce_running("READY=1\n");
	deadline_clear(READY_TIMEOUT);
	deadline_clear(READY_POLL);
	deadline_set(HEALTH_INTERVAL, guest.plan->health_interval_ms);
	log_print(LOG_INFO, "ready after %.1f ms: kernel %.1f, runtime %.1f, prepare %.1f, check %.1f, %s %.1f",
		clock_ms(0, now_us), clock_ms(0, guest.at_us.init), clock_ms(guest.at_us.init, guest.at_us.boot),
		clock_ms(guest.at_us.boot, guest.at_us.prepare), clock_ms(guest.at_us.prepare, guest.at_us.check),
		guest.name, clock_ms(guest.at_us.check, now_us));
	reload_service_ready();
}

/* Cheap conditions first: the command is only run when everything else holds. */
static void check_ready(void)
{
	char reason[REASON_MAX];
	deadline_clear(READY_POLL);
	if (guest.probe.pid != 0)
		return;                     /* the command still runs */
	const struct plan_ready *closed = ports_first_closed(guest.plan);
	if (closed != NULL) {
		guest_poll_again(READY_POLL_MS, ports_describe(closed, reason, sizeof reason));
	} else if (plan_awaits(guest.plan, READY_NOTIFY) && !guest.notified_ready) {
		snprintf(guest.reason, sizeof guest.reason, "%s has not sent READY=1", guest.name);
	} else if (plan_awaits(guest.plan, READY_EXEC) && !guest.ready_exec_succeeded) {
		if (!guest_start_probe(&guest.plan->ready_exec, reason))
			guest_poll_again(READY_EXEC_POLL_MS, reason);
	} else {
		ready();
	}
}

static void ready_exec_ended(bool succeeded, const char *reason)
{
	if (succeeded) {
		guest.ready_exec_succeeded = true;
		check_ready();
		return;
	}
	guest_poll_again(READY_EXEC_POLL_MS, reason);
}

static void start_service(void)
{
	if (guest.plan->until_check)
		finish(EXIT_STOPPED);
	guest.phase = STARTING;
	guest.at_us.check = clock_us();
	notify_send("STATUS=starting %s", guest.name);
	guest.service = process_start(guest.plan->exec.item, guest.environment, -1);
	if (guest.service < 0)
		fail(EXIT_SERVICE, "cannot run %s: %s", guest.plan->exec.item[0], strerror(errno));
	check_ready();
}

static void check_configuration(void)
{
	char reason[REASON_MAX];
	guest.phase = CHECKING;
	guest.at_us.prepare = clock_us();
	if (guest.plan->check.count == 0) {
		start_service();
		return;
	}
	notify_send("STATUS=checking configuration");
	if (!guest_start_step(&guest.plan->check, reason))
		fail(EXIT_CHECK, "check failed: %s", reason);
}

static void prepare(void)
{
	char reason[REASON_MAX];
	guest.phase = PREPARING;
	guest.at_us.boot = clock_us();
	if (guest.plan->prepare.count == 0) {
		check_configuration();
		return;
	}
	notify_send("STATUS=preparing");
	if (!guest_start_step(&guest.plan->prepare, reason))
		fail(EXIT_PREPARE, "prepare failed: %s", reason);
}

static void start_timed_out(void)
{
	unsigned timeout_ms = guest.plan->ready_timeout_ms;
	if (guest.phase == PREPARING)
		fail(EXIT_PREPARE, "prepare failed: not done %u ms after the start", timeout_ms);
	if (guest.phase == CHECKING)
		fail(EXIT_CHECK, "check failed: not done %u ms after the start", timeout_ms);
	log_print(LOG_ERR, "%s was not ready within %u ms: %s", guest.name, timeout_ms, guest.reason);
	notify_send("STATUS=%s was not ready within %u ms: %s", guest.name, timeout_ms, guest.reason);
	stop(EXIT_NOT_READY);
}

/* --- events ----------------------------------------------------------------------------------------- */

static void step_ended(int status)
{
	char reason[REASON_MAX];
	bool succeeded = step_end(&guest.step, status, reason, sizeof reason);
	switch (guest.phase) {
	case PREPARING:
		if (!succeeded)
			fail(EXIT_PREPARE, "prepare failed: %s", reason);
		check_configuration();
		break;
	case CHECKING:
		if (!succeeded)
			fail(EXIT_CHECK, "check failed: %s", reason);
		start_service();
		break;
	case RUNNING:
		reload_step_ended(succeeded, reason);
		break;
	case STARTING:
	case STOPPING:
		break;
	}
}

static void health_check_ended(bool succeeded, const char *reason)
{
	if (succeeded)
		healthy();
	else if (!reload_confirming())
		unhealthy(reason);
	reload_probe_ended(succeeded, reason);
}

static void probe_ended(int status)
{
	char reason[REASON_MAX];
	bool succeeded = step_end(&guest.probe, status, reason, sizeof reason);
	deadline_clear(PROBE_TIMEOUT);
	if (guest.phase == STARTING)
		ready_exec_ended(succeeded, reason);
	else if (guest.phase == RUNNING)
		health_check_ended(succeeded, reason);
}

static void reap(void)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == guest.service)
			service_ended(status);
		else if (pid == guest.step.pid)
			step_ended(status);
		else if (pid == guest.probe.pid)
			probe_ended(status);
	}
}

static void handle_signals(void)
{
	struct signalfd_siginfo signals[4];
	bool stop_wanted = false;
	ssize_t size = read(guest.signals, signals, sizeof signals);
	for (size_t i = 0; size > 0 && i < (size_t)size / sizeof signals[0]; i++)
		if (signals[i].ssi_signo != SIGCHLD)
			stop_wanted = true;
	/* First the dead: a service that ended by itself did not stop because the host wanted it to. */
	reap();
	if (stop_wanted)
		stop_for_host();
}

static void handle_syslog(void)
{
	static char datagram[SYSLOG_DATAGRAM_MAX];
	for (int i = 0; i < DATAGRAMS_PER_WAKEUP && !log_backlogged(); i++) {
		ssize_t size = recv(guest.syslog, datagram, sizeof datagram, 0);
		if (size <= 0)
			return;
		syslog_translate(datagram, (size_t)size, log_write);
	}
}

static void take_notification(char *line)
{
	static const char status[] = "STATUS=";
	if (strcmp(line, "READY=1") == 0) {
		guest.notified_ready = true;
	} else if (strncmp(line, status, sizeof status - 1) == 0) {
		snprintf(guest.service_status, sizeof guest.service_status, "%s", line + sizeof status - 1);
		if (guest.phase == RUNNING && !guest.unhealthy && !reload_under_way())
			guest_announce_running("");
	}
}

/* Only READY=1 and STATUS= mean something here; health and the watchdog are init's business. */
static void handle_notify(void)
{
	char datagram[NOTIFY_DATAGRAM_MAX + 1];
	for (;;) {
		ssize_t size = recv(guest.notify, datagram, sizeof datagram - 1, 0);
		if (size < 0)
			break;
		datagram[size] = '\0';
		char *rest = datagram;
		char *line;
		while ((line = strsep(&rest, "\n")) != NULL)
			take_notification(line);
	}
	if (guest.phase == STARTING && guest.notified_ready)
		check_ready();
}

static void handle_output(struct step *step)
{
	if (step->output >= 0 && !step_read(step))
		epoll_ctl(guest.epoll, EPOLL_CTL_DEL, step->output, NULL);
}

/* Without a way to reload there is nothing but names for which a disk could come. */
static void handle_disks(void)
{
	if (!delivery_came())
		return;
	if (plan_reloads(guest.plan) && !delivery_has_names())
		reload_disk_came();
	else
		hosts_take();
}

/*
 * When the console does not drain, the backlog must not grow: writers to syslog and the output of steps then wait, as
 * the service itself does in its writes to the console.
 */
static void throttle(void)
{
	bool backlogged = log_backlogged();
	if (backlogged == guest.throttled)
		return;
	guest.throttled = backlogged;
	uint32_t reading = backlogged ? 0 : EPOLLIN;
	rewatch(log_fd(), CONSOLE, backlogged ? EPOLLOUT : 0);
	rewatch(guest.syslog, SYSLOG, reading);
	if (guest.step.pid != 0 && guest.step.output >= 0)
		rewatch(guest.step.output, STEP_OUTPUT, reading);
	if (guest.probe.pid != 0 && guest.probe.output >= 0)
		rewatch(guest.probe.output, PROBE_OUTPUT, reading);
}

static void handle_event(enum source source)
{
	switch (source) {
	case SIGNALS: handle_signals(); break;
	case CONSOLE: log_flush(); break;
	case SYSLOG: handle_syslog(); break;
	case NOTIFY: handle_notify(); break;
	case STEP_OUTPUT: handle_output(&guest.step); break;
	case PROBE_OUTPUT: handle_output(&guest.probe); break;
	case DISKS: handle_disks(); break;
	}
}

static void ready_timed_out(void)
{
	if (guest.phase == RUNNING)
		reload_timed_out();
	else
		start_timed_out();
}

static void poll_ready(void)
{
	if (guest.phase == RUNNING)
		reload_poll();
	else
		check_ready();
}

static void handle_deadlines(void)
{
	if (deadline_take(STOP_TIMEOUT))
		stop_timed_out();
	if (deadline_take(READY_TIMEOUT))
		ready_timed_out();
	if (deadline_take(PROBE_TIMEOUT))
		step_kill(&guest.probe, true);
	if (deadline_take(READY_POLL))
		poll_ready();
	if (deadline_take(HEALTH_INTERVAL))
		check_health();
}

/* --- setting up ------------------------------------------------------------------------------------- */

static void set_up(const struct plan *plan, int64_t init_started_us)
{
	const char *slash = strrchr(plan->exec.item[0], '/');
	guest.plan = plan;
	guest.name = slash + 1;
	guest.at_us.init = init_started_us;
	deadline_wake();
	guest.step.output = guest.probe.output = -1;
	deadline_set(READY_TIMEOUT, plan->ready_timeout_ms);
	environment_make(plan, plan_awaits(plan, READY_NOTIFY) ? NOTIFY_SOCKET : NULL, guest.environment);
	guest.epoll = epoll_create1(EPOLL_CLOEXEC);
	guest.signals = descriptors_open_signals();
	guest.syslog = descriptors_open_socket(SYSLOG_SOCKET);
	guest_watch(guest.signals, SIGNALS, EPOLLIN);
	guest_watch(guest.syslog, SYSLOG, EPOLLIN);
	guest_watch(log_fd(), CONSOLE, 0);
	if (plan_awaits(plan, READY_NOTIFY)) {
		guest.notify = descriptors_open_socket(NOTIFY_SOCKET);
		guest_watch(guest.notify, NOTIFY, EPOLLIN);
	}
	guest_watch(delivery_fd(), DISKS, EPOLLIN);
}

_Noreturn void supervise(const struct plan *plan, int64_t init_started_us)
{
	set_up(plan, init_started_us);
	prepare();
	for (;;) {
		struct epoll_event events[8];
		throttle();
		int count = epoll_wait(guest.epoll, events, sizeof events / sizeof events[0], deadline_timeout_ms());
		if (count < 0 && errno != EINTR)
			fail(EXIT_RUNTIME, "cannot wait for events: %s", strerror(errno));
		deadline_wake();
		for (int i = 0; i < count; i++)
			handle_event(events[i].data.u32);
		handle_deadlines();
	}
}
