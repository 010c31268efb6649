/* SPDX-License-Identifier: Apache-2.0 */
/* How a start that cannot be ends: one line for the journal, the same as STATUS= for systemd, and an exit status. */
#ifndef APPLIANCE_REFUSE_H
#define APPLIANCE_REFUSE_H

/* sysexits(3). RestartPreventExitStatus= of appliance@.service has the first: starting again would not help. */
enum exit_code {
	EXIT_CONFIG = 78,
	EXIT_TEMPFAIL = 75,
};

/* The text is what the administrator reads in `systemctl status`. */
_Noreturn void refuse(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
