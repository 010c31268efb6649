/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum {
	LINE_MAX_BYTES = 1024,
	BACKLOG_BYTES = 16 * 1024,
};

static int console = -1;
static int notify_line = -1;

static struct {
	char bytes[BACKLOG_BYTES];
	size_t used;
	unsigned lost;              /* writes dropped since the backlog was last empty */
} backlog;

/* Without this the line discipline turns \n into \r\n, and echoes. */
static void make_raw(int fd)
{
	struct termios mode;
	if (tcgetattr(fd, &mode) < 0)
		return;             /* not a terminal: nothing to undo */
	cfmakeraw(&mode);
	tcsetattr(fd, TCSANOW, &mode);
}

/*
 * The kernel opens /dev/console as 0, 1 and 2 for init; the service inherits that description, so init
 * takes another one for O_NONBLOCK.
 */
void log_open(void)
{
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0) {
		for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
			(void)open("/dev/console", O_RDWR | O_NOCTTY);
	}
	make_raw(STDOUT_FILENO);
	console = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (console < 0)
		console = STDOUT_FILENO;
}

void notify_open(void)
{
	notify_line = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (notify_line < 0) {
		log_print(LOG_WARNING, "no notify line: /dev/ttyS0: %s, ignoring", strerror(errno));
		return;
	}
	make_raw(notify_line);
}

/* Returns how many bytes are dealt with: taken by the console, or gone because it is broken. */
static size_t write_some(const char *bytes, size_t size)
{
	size_t done = 0;
	while (done < size) {
		ssize_t count = write(console, bytes + done, size - done);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno != EAGAIN)
			return size;
		if (count <= 0)
			break;
		done += (size_t)count;
	}
	return done;
}

void log_write(const char *bytes, size_t size)
{
	size_t done = backlog.used == 0 ? write_some(bytes, size) : 0;
	size_t rest = size - done;
	if (rest > sizeof backlog.bytes - backlog.used) {
		backlog.lost++;
		return;
	}
	memcpy(backlog.bytes + backlog.used, bytes + done, rest);
	backlog.used += rest;
}

bool log_backlogged(void)
{
	return backlog.used > 0;
}

int log_fd(void)
{
	return console;
}

void log_flush(void)
{
	size_t done = write_some(backlog.bytes, backlog.used);
	backlog.used -= done;
	memmove(backlog.bytes, backlog.bytes + done, backlog.used);
	if (backlog.used == 0 && backlog.lost > 0) {
		unsigned lost = backlog.lost;
		backlog.lost = 0;
		log_print(LOG_WARNING, "%u messages lost: the console was not read", lost);
	}
}

/* Cuts what vsnprintf() would have written down to what fits. */
static size_t fitting(int wanted, size_t size)
{
	if (wanted < 0)
		return 0;
	return (size_t)wanted < size ? (size_t)wanted : size - 1;
}

/* A reason may quote a program's output: one line, and nothing a terminal would act on. */
static void clean(char *text, size_t size, const char *keep)
{
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)text[i];
		if ((c < ' ' || c == 0x7f) && (keep == NULL || strchr(keep, c) == NULL))
			text[i] = '?';
	}
}

void log_print(int priority, const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	size_t prefix = fitting(snprintf(line, sizeof line, "<%d>", priority), sizeof line);
	va_list arguments;
	va_start(arguments, format);
	size_t room = sizeof line - prefix - 1;
	size_t size = prefix + fitting(vsnprintf(line + prefix, room, format, arguments), room);
	va_end(arguments);
	clean(line, size, NULL);
	line[size++] = '\n';
	log_write(line, size);
}

void notify_send(const char *format, ...)
{
	char datagram[LINE_MAX_BYTES];
	if (notify_line < 0)
		return;
	va_list arguments;
	va_start(arguments, format);
	size_t size = fitting(vsnprintf(datagram, sizeof datagram, format, arguments), sizeof datagram);
	va_end(arguments);
	clean(datagram, size, "\n");
	while (write(notify_line, datagram, size) < 0 && errno == EINTR)
		;
}
