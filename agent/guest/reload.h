/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new set of the administrator's files for a service that runs and goes on running:
 *
 *     preparing ─► checking ─► telling ─► confirming ─► done
 *         └───────────┴───────────┴───────────┴───► the old files, preparing ─► telling ─► confirming ─► done
 *
 * On the way back, the service is told only if it was told before. The host waits for the READY=1 of the end, which
 * comes whatever happened; its STATUS= says what.
 */
#ifndef APPLIANCE_RELOAD_H
#define APPLIANCE_RELOAD_H

#include <stdbool.h>

/* A disk with new files has come. They are taken when the service runs, and no reload is under way. */
void reload_disk_came(void);

/* To be called when the service has become ready: takes files that came before. */
void reload_service_ready(void);

bool reload_under_way(void);

/* Whether the service was told and has not answered since. It is then asked more often than by its health checks. */
bool reload_confirming(void);

/* What was waited for. */
void reload_step_ended(bool succeeded, const char *reason);
void reload_probe_ended(bool succeeded, const char *reason);
void reload_poll(void);
void reload_timed_out(void);

/* The guest is stopping. */
void reload_abandon(void);

#endif
