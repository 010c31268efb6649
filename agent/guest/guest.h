/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the supervisor share: the guest as it stands (supervise.c has its life, reload.c what happens when
 * new files come), and what both of them do with it.
 */
#ifndef APPLIANCE_GUEST_H
#define APPLIANCE_GUEST_H

#include "environment.h"
#include "finish.h"
#include "plan.h"
#include "step.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	READY_POLL_MS = 2,                  /* ports */
	READY_EXEC_POLL_MS = 20,            /* a process each time */
	REASON_MAX = 384,
	STATUS_MAX = 128,
};

enum phase { PREPARING, CHECKING, STARTING, RUNNING, STOPPING };

enum source { SIGNALS, CONSOLE, SYSLOG, NOTIFY, STEP_OUTPUT, PROBE_OUTPUT, DISKS };

struct guest {
	const struct plan *plan;
	const char *name;                   /* of the service: the last component of exec */
	char *environment[ENVIRONMENT_MAX + 1];
	int epoll, signals, syslog, notify;
	enum phase phase;
	pid_t service;                      /* 0: not running */
	enum exit_code exit_code;           /* in phase STOPPING */
	struct step step;                   /* prepare, check, reload */
	struct step probe;                  /* ready-exec, health: a question to the service, also beside a step */
	bool throttled;                     /* no output is read while the console is backlogged */
	bool notified_ready;                /* by the service */
	bool ready_exec_succeeded;
	bool unhealthy;
	char reason[REASON_MAX];            /* why not ready yet, or unhealthy */
	char service_status[STATUS_MAX];    /* STATUS= of the service */
	struct { int64_t init, boot, prepare, check, service; } at_us;
};

extern struct guest guest;

void guest_watch(int fd, enum source source, uint32_t events);

/* Returns false with `reason` if the command cannot even be started. */
bool guest_start_step(const struct plan_list *command, char reason[REASON_MAX]);

/* The same for a question that is asked again and again: quiet, and with a time limit of its own. */
bool guest_start_probe(const struct plan_list *command, char reason[REASON_MAX]);

/* The service does not answer yet. */
void guest_poll_again(unsigned delay_ms, const char *reason);

/* The variables, each with its newline, and the status of a service that is well. */
void guest_announce_running(const char *variables);

#endif
