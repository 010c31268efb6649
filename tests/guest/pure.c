/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime's pure parts on the build host, under the sanitizers: `pure plan`, `pure syslog`, `pure header`,
 * `pure path` and `pure archive` read one case from standard input.
 */
#include "archive.h"
#include "newc.h"
#include "plan.h"
#include "rfc3164.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static int read_header(void)
{
	struct newc_entry entry;
	size_t size;
	char *header = read_input(&size, 0);
	if (size == NEWC_HEADER_BYTES && newc_read_header(header, &entry))
		printf("mode %o, %u bytes, name of %u\n", entry.mode, entry.size, entry.name_size);
	else
		puts("no header");
	free(header);
	return 0;
}

static int judge_path(void)
{
	size_t size;
	char *path = read_input(&size, 1);
	path[size] = '\0';
	puts(newc_is_plain_path(path) ? "plain" : "not plain");
	free(path);
	return 0;
}

static bool list_entry(struct archive *archive)
{
	printf("%s mode %o, %u bytes:", archive->name, archive->entry.mode, archive->entry.size);
	while (archive->left > 0) {
		size_t size;
		const char *bytes = archive_take_some(archive, &size);
		if (bytes == NULL)
			return false;
		print(bytes, size);
	}
	puts("");
	return true;
}

/* Contents are read, but for those of files whose names begin with a dot. */
static int list_archive(void)
{
	static struct archive archive;
	char text[64] = "";
	const struct reason reason = {text, sizeof text};
	archive_begin(&archive, STDIN_FILENO, &reason);
	while (archive_next(&archive) && !archive_ended(&archive))
		if (archive.name[0] != '.' && !list_entry(&archive))
			break;
	puts(text[0] != '\0' ? text : "end");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "plan") == 0)
		return parse();
	if (argc == 2 && strcmp(argv[1], "syslog") == 0)
		return translate();
	if (argc == 2 && strcmp(argv[1], "header") == 0)
		return read_header();
	if (argc == 2 && strcmp(argv[1], "path") == 0)
		return judge_path();
	if (argc == 2 && strcmp(argv[1], "archive") == 0)
		return list_archive();
	return 2;
}
