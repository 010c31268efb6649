/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch NAME: ExecStart= of appliance@.service. Opens what must be opened, then becomes the guest's kernel.
 *
 * It runs as the appliance's own user inside the unit's sandbox and follows the launch plan (agent/plan/launch.py). It
 * is part of every start, so it is a static program and no script: an interpreter costs nine milliseconds before its
 * first line (docs/decisions/0014-launcher-in-c.md). It allocates no memory.
 */
#include "descriptors.h"
#include "image.h"
#include "refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#ifndef RUNTIME_DIRECTORY               /* tests have one of their own */
#define RUNTIME_DIRECTORY "/run/appliance"
#endif

enum {
	PLAN_MAX = 64 * 1024,
	ARGUMENTS_MAX = 128,
	TAPS_MAX = 32,
};

static struct {
	int notify;
	int taps[TAPS_MAX];
	size_t tap_count;
	char *argv[ARGUMENTS_MAX + 1];
	size_t argument_count;
} guest;

static void read_plan(const char *appliance, char text[PLAN_MAX + 1])
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, RUNTIME_DIRECTORY "/%s/launch", appliance);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, PLAN_MAX + 1);
	if (size < 0)
		refuse(EXIT_CONFIG, "%s: %s; `appliancectl apply` writes it", path, strerror(errno));
	if (size > PLAN_MAX)
		refuse(EXIT_CONFIG, "%s: longer than 64 KiB", path);
	text[size] = '\0';
	close(fd);
}

/* {notify}, {tap0} …: moves `from` behind the placeholder and returns its descriptor; -1 for anything else. */
static int placeholder(const char **from)
{
	char name[16];
	for (size_t i = 0; i <= guest.tap_count; i++) {
		int size = i == 0 ? snprintf(name, sizeof name, "{notify}") : snprintf(name, sizeof name, "{tap%zu}", i - 1);
		if (strncmp(*from, name, (size_t)size) == 0) {
			*from += size;
			return i == 0 ? guest.notify : guest.taps[i - 1];
		}
	}
	return -1;
}

/* One element of the kernel's command line, with the numbers of descriptors in place of their names. */
static void add_argument(const char *text)
{
	static char filled[2 * PLAN_MAX];   /* a number is never longer than its placeholder */
	static size_t used;
	if (guest.argument_count == ARGUMENTS_MAX)
		refuse(EXIT_CONFIG, "launch plan: more than %d arguments", ARGUMENTS_MAX);
	guest.argv[guest.argument_count++] = filled + used;
	while (*text != '\0') {
		int number = placeholder(&text);
		if (number >= 0)
			used += (size_t)sprintf(filled + used, "%d", number);
		else
			filled[used++] = *text++;
	}
	filled[used++] = '\0';
}

static void add_tap(const char *name)
{
	if (guest.tap_count == TAPS_MAX)
		refuse(EXIT_CONFIG, "launch plan: more than %d taps", TAPS_MAX);
	guest.taps[guest.tap_count] = open_tap(guest.tap_count, name);
	guest.tap_count++;
}

static void follow(const char *directive, char *text)
{
	if (strcmp(directive, "#") == 0)
		return;
	if (strcmp(directive, "refuse") == 0)
		refuse(EXIT_CONFIG, "%s", text);
	if (strcmp(directive, "image") == 0) {
		const char *digest = strsep(&text, " ");
		check_image(digest, text != NULL ? text : "");
	} else if (strcmp(directive, "tap") == 0) {
		add_tap(text);
	} else if (strcmp(directive, "exec") == 0 || strcmp(directive, "arg") == 0) {
		add_argument(text);
	} else {
		refuse(EXIT_CONFIG, "launch plan: unknown directive “%s”; `appliancectl apply` writes a new one", directive);
	}
}

/* Lines of "DIRECTIVE TEXT". The last one ends in a newline as all do. */
static void follow_plan(char *text)
{
	char *line;
	while ((line = strsep(&text, "\n")) != NULL && text != NULL) {
		const char *directive = strsep(&line, " ");
		follow(directive, line != NULL ? line : "");
	}
	if (guest.argument_count == 0)
		refuse(EXIT_CONFIG, "launch plan: no kernel named; `appliancectl apply` writes a new one");
}

static void bequeath(int fd)
{
	if (fcntl(fd, F_SETFD, 0) < 0)
		refuse(EXIT_TEMPFAIL, "cannot hand over a descriptor: %s", strerror(errno));
}

static _Noreturn void become_guest(void)
{
	static char temporary[PATH_MAX];
	static char home[] = "HOME=/";
	char *environment[] = {home, temporary, NULL};
	const char *directory = getenv("TMPDIR");
	if (directory == NULL)
		refuse(EXIT_CONFIG, "TMPDIR is not set; a guest's memory has no place");
	snprintf(temporary, sizeof temporary, "TMPDIR=%s", directory);
	bequeath(guest.notify);
	for (size_t i = 0; i < guest.tap_count; i++)
		bequeath(guest.taps[i]);
	/* The kernel would set it and execute itself again, arch/um/os-Linux/main.c. */
	personality(ADDR_NO_RANDOMIZE);
	execve(guest.argv[0], guest.argv, environment);
	refuse(EXIT_CONFIG, "kernel %s: %s", guest.argv[0], strerror(errno));
}

int main(int argc, char *argv[])
{
	static char plan[PLAN_MAX + 1];
	if (argc != 2)
		refuse(EXIT_CONFIG, "usage: launch NAME");
	read_plan(argv[1], plan);
	guest.notify = open_notify();
	follow_plan(plan);
	become_guest();
}
