/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	HOSTNAME_MAX = 64,          /* __NEW_UTS_LEN */
	SIGNAL_MAX = 64,
	DAY_MS = 24 * 60 * 60 * 1000,
	MTU_MIN = 576,
	MTU_MAX = 65535,
};

struct key;

struct parser {
	struct plan *plan;
	const struct key *key;
	unsigned line;
	char *error;
	size_t error_size;
};

struct key {
	const char *name;
	bool (*parse)(struct parser *parser, char *value);
	size_t field;               /* offset in struct plan of what the parser fills in */
	unsigned min, max;          /* numbers only */
	bool repeats;
};

__attribute__((format(printf, 2, 3)))
static bool refuse(struct parser *parser, const char *format, ...)
{
	int used = snprintf(parser->error, parser->error_size, "boot plan line %u: ", parser->line);
	if (used >= 0 && (size_t)used < parser->error_size) {
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(parser->error + used, parser->error_size - (size_t)used, format, arguments);
		va_end(arguments);
	}
	return false;
}

static void *field(struct parser *parser)
{
	return (char *)parser->plan + parser->key->field;
}

static bool too_many(struct parser *parser)
{
	return refuse(parser, "too many lines with the key '%s'", parser->key->name);
}

/* Digits only: strtoul() would also take signs, spaces and other bases. */
static bool read_number(const char *text, unsigned min, unsigned max, unsigned *number)
{
	if (text[0] == '\0' || text[strspn(text, "0123456789")] != '\0')
		return false;
	errno = 0;
	unsigned long value = strtoul(text, NULL, 10);
	if (errno != 0 || value < min || value > max)
		return false;
	*number = (unsigned)value;
	return true;
}

static bool parse_number(struct parser *parser, char *value)
{
	const struct key *key = parser->key;
	if (!read_number(value, key->min, key->max, field(parser)))
		return refuse(parser, "%s: '%s' is not a number from %u to %u", key->name, value, key->min, key->max);
	return true;
}

static bool parse_text(struct parser *parser, char *value)
{
	char **text = field(parser);
	*text = value;
	return true;
}

static bool parse_hostname(struct parser *parser, char *value)
{
	if (strlen(value) > HOSTNAME_MAX)
		return refuse(parser, "hostname is longer than %d bytes", HOSTNAME_MAX);
	return parse_text(parser, value);
}

static bool check_absolute(struct parser *parser, const char *value)
{
	return value[0] == '/' || refuse(parser, "%s: '%s' is not an absolute path", parser->key->name, value);
}

static bool parse_path(struct parser *parser, char *value)
{
	return check_absolute(parser, value) && parse_text(parser, value);
}

static bool parse_until(struct parser *parser, char *value)
{
	if (strcmp(value, "check") != 0)
		return refuse(parser, "'until' knows only 'check', found '%s'", value);
	parser->plan->until_check = true;
	return true;
}

static bool parse_list(struct parser *parser, char *value)
{
	struct plan_list *list = field(parser);
	if (list->count == PLAN_LIST_MAX)
		return too_many(parser);
	list->item[list->count++] = value;
	return true;
}

static bool parse_paths(struct parser *parser, char *value)
{
	return check_absolute(parser, value) && parse_list(parser, value);
}

/* Commands are executed directly, never looked up in PATH: the first element is a path. */
static bool parse_command(struct parser *parser, char *value)
{
	const struct plan_list *list = field(parser);
	return list->count == 0 ? parse_paths(parser, value) : parse_list(parser, value);
}

static bool parse_environment(struct parser *parser, char *value)
{
	size_t name = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
	bool starts_with_digit = value[0] >= '0' && value[0] <= '9';
	if (name == 0 || starts_with_digit || value[name] != '=')
		return refuse(parser, "environment: '%s' is not NAME=value", value);
	return parse_list(parser, value);
}

static bool read_address(const char *text, struct plan_address *address)
{
	address->family = strchr(text, ':') ? AF_INET6 : AF_INET;
	address->prefix = address->family == AF_INET6 ? 128 : 32;
	return inet_pton(address->family, text, address->bytes) == 1;
}

/* Cuts "vec0 rest" in two; the device is one that could be a network interface and a file name. */
static char *read_device(char *value, char device[IFNAMSIZ])
{
	char *space = strchr(value, ' ');
	if (space == NULL || space == value || space - value >= IFNAMSIZ)
		return NULL;
	size_t length = (size_t)(space - value);
	if (memchr(value, '/', length) != NULL || value[0] == '.')
		return NULL;
	memcpy(device, value, length);
	device[length] = '\0';
	return space + 1;
}

static bool parse_address(struct parser *parser, char *value)
{
	struct plan_addresses *addresses = field(parser);
	if (addresses->count == PLAN_ADDRESSES_MAX)
		return too_many(parser);
	struct plan_address *address = &addresses->item[addresses->count];
	char *text = read_device(value, address->device);
	char *slash = text ? strchr(text, '/') : NULL;
	if (slash == NULL)
		return refuse(parser, "address: '%s' is not DEVICE ADDRESS/PREFIX", value);
	*slash = '\0';
	if (!read_address(text, address))
		return refuse(parser, "address: '%s' is neither an IPv4 nor an IPv6 address", text);
	if (!read_number(slash + 1, 0, address->prefix, &address->prefix))
		return refuse(parser, "address: '%s' is not a prefix length for %s", slash + 1, text);
	address->line = parser->line;
	addresses->count++;
	return true;
}

static bool parse_gateway(struct parser *parser, char *value)
{
	struct plan_addresses *gateways = field(parser);
	if (gateways->count == PLAN_ADDRESSES_MAX)
		return too_many(parser);
	struct plan_address *gateway = &gateways->item[gateways->count];
	if (!read_address(value, gateway))
		return refuse(parser, "gateway: '%s' is neither an IPv4 nor an IPv6 address", value);
	gateway->line = parser->line;
	gateways->count++;
	return true;
}

static bool parse_nameserver(struct parser *parser, char *value)
{
	struct plan_address address;
	if (!read_address(value, &address))
		return refuse(parser, "nameserver: '%s' is neither an IPv4 nor an IPv6 address", value);
	return parse_list(parser, value);
}

static bool parse_mtu(struct parser *parser, char *value)
{
	struct plan *plan = parser->plan;
	if (plan->mtu_count == PLAN_ADDRESSES_MAX)
		return too_many(parser);
	struct plan_mtu *mtu = &plan->mtu[plan->mtu_count];
	const char *number = read_device(value, mtu->device);
	if (number == NULL || !read_number(number, MTU_MIN, MTU_MAX, &mtu->bytes))
		return refuse(parser, "mtu: '%s' is not DEVICE BYTES with %d to %d bytes", value, MTU_MIN, MTU_MAX);
	plan->mtu_count++;
	return true;
}

static bool read_ready(char *value, struct plan_ready *ready)
{
	static const char *const names[] = {
		[READY_TCP] = "tcp ", [READY_UDP] = "udp ", [READY_EXEC] = "exec", [READY_NOTIFY] = "notify",
	};
	for (size_t kind = 0; kind < sizeof names / sizeof names[0]; kind++) {
		size_t length = strlen(names[kind]);
		if (strncmp(value, names[kind], length) != 0)
			continue;
		ready->kind = (enum ready_kind)kind;
		if (kind == READY_TCP || kind == READY_UDP)
			return read_number(value + length, 1, 65535, &ready->port);
		return value[length] == '\0';
	}
	return false;
}

static bool parse_ready(struct parser *parser, char *value)
{
	struct plan *plan = parser->plan;
	if (plan->ready_count == PLAN_READY_MAX)
		return too_many(parser);
	if (!read_ready(value, &plan->ready[plan->ready_count]))
		return refuse(parser, "ready: '%s' is none of 'tcp PORT', 'udp PORT', 'exec', 'notify'", value);
	plan->ready_count++;
	return true;
}

#define FIELD(member) offsetof(struct plan, member)

static const struct key keys[] = {
	{"hostname", parse_hostname, FIELD(hostname), 0, 0, false},
	{"address", parse_address, FIELD(addresses), 0, 0, true},
	{"gateway", parse_gateway, FIELD(gateways), 0, 0, true},
	{"mtu", parse_mtu, FIELD(mtu), 0, 0, true},
	{"nameserver", parse_nameserver, FIELD(nameservers), 0, 0, true},
	{"search", parse_list, FIELD(search), 0, 0, true},
	{"host", parse_list, FIELD(hosts), 0, 0, true},
	{"tmpfs", parse_paths, FIELD(tmpfs), 0, 0, true},
	{"data", parse_path, FIELD(data), 0, 0, false},
	{"prepare", parse_command, FIELD(prepare), 0, 0, true},
	{"check", parse_command, FIELD(check), 0, 0, true},
	{"until", parse_until, 0, 0, 0, false},
	{"exec", parse_command, FIELD(exec), 0, 0, true},
	{"health", parse_command, FIELD(health), 0, 0, true},
	{"reload", parse_command, FIELD(reload), 0, 0, true},
	{"reload-signal", parse_number, FIELD(reload_signal), 1, SIGNAL_MAX, false},
	{"environment", parse_environment, FIELD(environment), 0, 0, true},
	{"ready", parse_ready, FIELD(ready), 0, 0, true},
	{"ready-exec", parse_command, FIELD(ready_exec), 0, 0, true},
	{"ready-timeout-ms", parse_number, FIELD(ready_timeout_ms), 1, DAY_MS, false},
	{"stop-signal", parse_number, FIELD(stop_signal), 1, SIGNAL_MAX, false},
	{"stop-timeout-ms", parse_number, FIELD(stop_timeout_ms), 0, DAY_MS, false},
	{"health-interval-ms", parse_number, FIELD(health_interval_ms), 10, DAY_MS, false},
	{"health-timeout-ms", parse_number, FIELD(health_timeout_ms), 1, DAY_MS, false},
};

enum { KEYS = sizeof keys / sizeof keys[0] };

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < KEYS; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static bool parse_line(struct parser *parser, char *line, bool seen[KEYS])
{
	char *equals = strchr(line, '=');
	if (equals == NULL)
		return refuse(parser, "'%s' is not KEY=VALUE", line);
	*equals = '\0';
	parser->key = find_key(line);
	if (parser->key == NULL)
		return refuse(parser, "unknown key '%s'", line);
	size_t index = (size_t)(parser->key - keys);
	if (seen[index] && !parser->key->repeats)
		return refuse(parser, "the key '%s' stands there twice", line);
	seen[index] = true;
	return parser->key->parse(parser, equals + 1);
}

/* The version stands first, so that a plan for another version is refused for that and for nothing else. */
static bool parse_interface(struct parser *parser, const char *line)
{
	static const char key[] = "interface=";
	if (strncmp(line, key, sizeof key - 1) != 0)
		return refuse(parser, "expected '%sVERSION', found '%s'", key, line);
	const char *version = line + sizeof key - 1;
	if (!read_number(version, PLAN_INTERFACE, PLAN_INTERFACE, &parser->plan->interface))
		return refuse(parser, "interface '%s' is not supported, this runtime speaks %d", version, PLAN_INTERFACE);
	return true;
}

static bool parse_lines(struct parser *parser, char *text)
{
	bool seen[KEYS] = {false};
	for (char *line = text; line != NULL;) {
		char *end = strchr(line, '\n');
		if (end != NULL)
			*end++ = '\0';
		parser->line++;
		if (parser->line == 1) {
			if (!parse_interface(parser, line))
				return false;
		} else if (line[0] != '\0' && !parse_line(parser, line, seen)) {
			return false;
		}
		line = end;
	}
	return true;
}

static bool check_complete(struct parser *parser)
{
	const struct plan *plan = parser->plan;
	if (plan->hostname == NULL || plan->hostname[0] == '\0')
		return refuse(parser, "no hostname");
	if (plan->exec.count == 0)
		return refuse(parser, "no exec: there is no service to run");
	if (plan_awaits(plan, READY_EXEC) != (plan->ready_exec.count > 0))
		return refuse(parser, "'ready=exec' and 'ready-exec=' go together");
	if (plan->reload.count > 0 && plan->reload_signal != 0)
		return refuse(parser, "'reload=' and 'reload-signal=' exclude each other");
	return true;
}

bool plan_awaits(const struct plan *plan, enum ready_kind kind)
{
	for (size_t i = 0; i < plan->ready_count; i++)
		if (plan->ready[i].kind == kind)
			return true;
	return false;
}

bool plan_reloads(const struct plan *plan)
{
	return plan->reload.count > 0 || plan->reload_signal != 0;
}

bool plan_parse(struct plan *plan, char *text, size_t size, char *error, size_t error_size)
{
	*plan = (struct plan){
		.ready_timeout_ms = 30000,
		.stop_signal = 15,          /* SIGTERM */
		.stop_timeout_ms = 5000,
		.health_interval_ms = 2000,
		.health_timeout_ms = 2000,
	};
	struct parser parser = {.plan = plan, .error = error, .error_size = error_size};
	text[size] = '\0';
	if (strlen(text) != size) {
		snprintf(error, error_size, "boot plan: contains a NUL byte");
		return false;
	}
	return parse_lines(&parser, text) && check_complete(&parser);
}
