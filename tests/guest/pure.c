/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime's pure parts on the build host, under the sanitizers: `pure plan` and `pure syslog` read one case from
 * standard input.
 */
#include "plan.h"
#include "rfc3164.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(const char *line, size_t size)
{
	fwrite(line, 1, size, stdout);
}

/* Exactly as large as needed, so that a read behind the end is seen. */
static char *read_input(size_t *size, size_t spare)
{
	static char input[PLAN_MAX_BYTES];
	*size = fread(input, 1, sizeof input, stdin);
	char *copy = malloc(*size + spare + 1);
	memcpy(copy, input, *size);
	return realloc(copy, *size + spare > 0 ? *size + spare : 1);
}

static int parse(void)
{
	static struct plan plan;
	char error[256] = "";
	size_t size;
	char *text = read_input(&size, 1);
	bool valid = plan_parse(&plan, text, size, error, sizeof error);
	puts(valid ? "valid" : error);
	free(text);
	return valid ? 0 : 1;
}

static int translate(void)
{
	size_t size;
	char *datagram = read_input(&size, 0);
	syslog_translate(datagram, size, print);
	free(datagram);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "plan") == 0)
		return parse();
	if (argc == 2 && strcmp(argv[1], "syslog") == 0)
		return translate();
	return 2;
}
