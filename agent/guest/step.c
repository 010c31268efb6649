/* SPDX-License-Identifier: Apache-2.0 */
#include "step.h"

#include "log.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool step_start(struct step *step, char *const argv[], char *const environment[], bool verbose)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid_t pid = process_start(argv, environment, ends[1]);
	int error = errno;
	close(ends[1]);
	if (pid < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		close(ends[0]);
		errno = error;
		return false;
	}
	*step = (struct step){.pid = pid, .output = ends[0], .verbose = verbose};
	return true;
}

static void end_line(struct step *step)
{
	if (step->used > 0) {
		memcpy(step->last, step->line, step->used);
		step->last[step->used] = '\0';
	}
	step->used = 0;
}

static void keep_last_line(struct step *step, const char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i] == '\n')
			end_line(step);
		else if (step->used < sizeof step->line - 1)
			step->line[step->used++] = bytes[i];
	}
}

bool step_read(struct step *step)
{
	char bytes[1024];
	ssize_t size;
	while ((size = read(step->output, bytes, sizeof bytes)) > 0) {
		keep_last_line(step, bytes, (size_t)size);
		if (step->verbose)
			log_write(bytes, (size_t)size);
		if (log_backlogged())
			return true;
	}
	return size < 0 && (errno == EAGAIN || errno == EINTR);
}

void step_kill(struct step *step, bool timed_out)
{
	step->timed_out = timed_out;
	kill(-step->pid, SIGKILL);
}

bool step_end(struct step *step, int status, char *reason, size_t size)
{
	char description[64];
	step_read(step);
	close(step->output);
	step->output = -1;
	step->pid = 0;
	end_line(step);
	bool succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (succeeded)
		reason[0] = '\0';
	else if (step->timed_out)
		snprintf(reason, size, "timed out%s%s", step->last[0] ? ": " : "", step->last);
	else
		snprintf(reason, size, "%s",
			step->last[0] ? step->last : process_describe(status, description, sizeof description));
	return succeeded;
}
