/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The boot plan: what the host wants of this guest, as text in /appliance/boot.
 *
 * plan_parse() is pure (no I/O, no allocation): the plan points into the text it was made from, so the
 * text must outlive it. The format is written down in docs/interface-1.md.
 */
#ifndef APPLIANCE_PLAN_H
#define APPLIANCE_PLAN_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PLAN_INTERFACE = 1,         /* the version of the contract this runtime implements */
	PLAN_MAX_BYTES = 64 * 1024,
	PLAN_LIST_MAX = 128,
	PLAN_ADDRESSES_MAX = 32,
	PLAN_READY_MAX = 16,
};

/* NULL-terminated, so that .item is an argv as it stands. */
struct plan_list {
	size_t count;
	char *item[PLAN_LIST_MAX + 1];
};

struct plan_address {
	char device[IFNAMSIZ];      /* "" for a gateway */
	int family;                 /* AF_INET or AF_INET6 */
	uint8_t bytes[16];          /* network byte order */
	unsigned prefix;
	unsigned line;              /* of the boot plan, for messages */
};

struct plan_addresses {
	size_t count;
	struct plan_address item[PLAN_ADDRESSES_MAX];
};

struct plan_mtu {
	char device[IFNAMSIZ];
	unsigned bytes;
};

enum ready_kind { READY_TCP, READY_UDP, READY_EXEC, READY_NOTIFY };

struct plan_ready {
	enum ready_kind kind;
	unsigned port;              /* READY_TCP and READY_UDP */
};

struct plan {
	unsigned interface;
	char *hostname;
	struct plan_addresses addresses;
	struct plan_addresses gateways;
	size_t mtu_count;
	struct plan_mtu mtu[PLAN_ADDRESSES_MAX];
	struct plan_list nameservers;
	struct plan_list search;
	struct plan_list hosts;
	struct plan_list tmpfs;
	char *data;                 /* NULL: no data volume */
	struct plan_list prepare;
	struct plan_list check;
	bool until_check;           /* end after the check: the service is not started */
	struct plan_list exec;
	struct plan_list health;
	struct plan_list reload;    /* tells the service of new files; else the signal does */
	unsigned reload_signal;     /* 0: none */
	struct plan_list environment;
	size_t ready_count;
	struct plan_ready ready[PLAN_READY_MAX];
	struct plan_list ready_exec;
	unsigned ready_timeout_ms;
	unsigned stop_signal;
	unsigned stop_timeout_ms;
	unsigned health_interval_ms;
	unsigned health_timeout_ms;
};

/*
 * Parses `size` bytes of `text`, which is cut into strings in place; text[size] must be writable.
 * On failure returns false with one line in `error`, naming the line of the plan.
 */
bool plan_parse(struct plan *plan, char *text, size_t size, char *error, size_t error_size);

bool plan_awaits(const struct plan *plan, enum ready_kind kind);

/* Whether the service can be told of new files while it runs. */
bool plan_reloads(const struct plan *plan);

#endif
