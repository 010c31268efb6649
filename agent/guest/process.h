/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_PROCESS_H
#define APPLIANCE_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Starts argv[0] directly, as leader of a new session, with no signal blocked, /dev/null as standard
 * input, and `output` (-1: the console) as standard output and error. Returns its process id, or -1 with
 * errno if it could not be executed.
 */
pid_t process_start(char *const argv[], char *const environment[], int output);

/* "exit status 3" or "killed by signal 9 (Killed)". Returns `text`. */
const char *process_describe(int status, char *text, size_t size);

#endif
