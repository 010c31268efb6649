/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step: a command that runs to its end beside or before the service (prepare, check, ready-exec, health, reload),
 * with its last line of output kept, since that usually is the reason when it fails.
 */
#ifndef APPLIANCE_STEP_H
#define APPLIANCE_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { STEP_LINE_MAX = 256 };

struct step {
	pid_t pid;                          /* 0: not running */
	int output;                         /* our end of the pipe, non-blocking; -1: none */
	bool verbose;                       /* output also goes to the console */
	bool timed_out;
	char line[STEP_LINE_MAX];           /* the one being written */
	size_t used;
	char last[STEP_LINE_MAX];           /* the last complete one that is not empty */
};

/* Returns false with errno if the command cannot be run. */
bool step_start(struct step *step, char *const argv[], char *const environment[], bool verbose);

/* Takes what there is of output; returns false at its end. */
bool step_read(struct step *step);

/* Kills the step's whole session; its end comes as SIGCHLD. */
void step_kill(struct step *step, bool timed_out);

/*
 * To be called when the process was reaped. Closes the pipe and returns whether the step succeeded; if not,
 * `reason` says why: the last line of output if there was one, else the status.
 */
bool step_end(struct step *step, int status, char *reason, size_t size);

#endif
