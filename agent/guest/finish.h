/* SPDX-License-Identifier: Apache-2.0 */
/* How a guest ends: everything killed, the data volume clean, and an exit status for the host. */
#ifndef APPLIANCE_FINISH_H
#define APPLIANCE_FINISH_H

/*
 * The exit status of the guest's kernel process; part of the contract (docs/interface-1.md). Clear of
 * sysexits(3) and of the numbers systemd gives names to (64–78, 200–245).
 */
enum exit_code {
	EXIT_STOPPED = 0,           /* stopped by the host */
	EXIT_BOOT_PLAN = 81,
	EXIT_IMAGE = 82,
	EXIT_DATA_VOLUME = 83,
	EXIT_NETWORK = 84,
	EXIT_PREPARE = 85,
	EXIT_CHECK = 86,
	EXIT_SERVICE = 87,          /* the service ended, or could not be started */
	EXIT_NOT_READY = 88,
	EXIT_RUNTIME = 89,          /* the runtime itself could not go on */
};

/* Kills every process, unmounts the data volume and powers off. */
_Noreturn void finish(enum exit_code code);

/* The same after telling journal and service manager why. */
_Noreturn void fail(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
