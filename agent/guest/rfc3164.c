/* SPDX-License-Identifier: Apache-2.0 */
#include "rfc3164.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

enum {
	PRIORITY_MAX = 191,                 /* facility 23, severity 7 */
	TAG_MAX = 64,
	TIMESTAMP_SIZE = 16,                /* "Jan  2 15:04:05 " */
};

static const char continued[] = "...\n";

struct text {
	const char *at;
	size_t left;
};

struct line {
	char bytes[SYSLOG_LINE_MAX];
	size_t used;
	size_t prefix;                      /* bytes of "<N>tag[pid]: ", repeated on continuation lines */
	void (*emit)(const char *line, size_t size);
};

static void skip(struct text *text, size_t count)
{
	text->at += count;
	text->left -= count;
}

/* A datagram without "<PRI>" counts as user.notice, as RFC 3164 §4.3.3 has it. */
static int take_severity(struct text *text)
{
	int priority = 0;
	size_t i = 1;
	if (text->left == 0 || text->at[0] != '<')
		return LOG_NOTICE;
	for (; i < text->left && i < 4 && text->at[i] >= '0' && text->at[i] <= '9'; i++)
		priority = priority * 10 + (text->at[i] - '0');
	if (i == 1 || i == text->left || text->at[i] != '>' || priority > PRIORITY_MAX)
		return LOG_NOTICE;
	skip(text, i + 1);
	return priority & LOG_PRIMASK;
}

/* journald has its own, better clock. */
static void skip_timestamp(struct text *text)
{
	static const char shape[] = "Aaa dd dd:dd:dd ";
	if (text->left < TIMESTAMP_SIZE)
		return;
	for (size_t i = 0; i < TIMESTAMP_SIZE; i++) {
		char c = text->at[i];
		bool digit = c >= '0' && c <= '9';
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		switch (shape[i]) {
		case 'd': if (!digit && !(i == 4 && c == ' ')) return; break;
		case 'A': case 'a': if (!letter) return; break;
		default: if (c != shape[i]) return;
		}
	}
	skip(text, TIMESTAMP_SIZE);
}

static bool printable(char c)
{
	return (unsigned char)c > ' ' && c != 0x7f;
}

/* Takes "tag[pid]:" with the blanks behind it; returns the size of "tag[pid]", 0 if there is none. */
static size_t take_tag(struct text *text)
{
	size_t size = 0;
	while (size < text->left && size < TAG_MAX && printable(text->at[size]) && text->at[size] != ':')
		size++;
	if (size == 0 || size == text->left || text->at[size] != ':')
		return 0;
	skip(text, size + 1);
	while (text->left > 0 && text->at[0] == ' ')
		skip(text, 1);
	return size;
}

static bool continues_character(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* Ends the line where a UTF-8 sequence ends, and carries the rest of a cut one over to the next line. */
static void break_line(struct line *line)
{
	char rest[4];
	size_t end = line->used;
	while (line->used - end < 3 && end > line->prefix + 1 && continues_character(line->bytes[end - 1]))
		end--;
	bool leads = (unsigned char)line->bytes[end - 1] >= 0xc0 && end > line->prefix + 1;
	end = leads ? end - 1 : line->used;
	size_t carried = line->used - end;
	memcpy(rest, line->bytes + end, carried);
	memcpy(line->bytes + end, continued, sizeof continued - 1);
	line->emit(line->bytes, end + sizeof continued - 1);
	memcpy(line->bytes + line->prefix, rest, carried);
	line->used = line->prefix + carried;
}

static void append(struct line *line, const char *bytes, size_t size)
{
	if (line->used + size > sizeof line->bytes - (sizeof continued - 1))
		break_line(line);
	memcpy(line->bytes + line->used, bytes, size);
	line->used += size;
}

static void append_escaped(struct line *line, char c)
{
	char escape[5];
	if (printable(c) || c == ' ' || c == '\t') {
		append(line, &c, 1);
		return;
	}
	snprintf(escape, sizeof escape, "\\x%02x", (unsigned char)c);
	append(line, escape, 4);
}

static void trim(struct text *text)
{
	while (text->left > 0 && (text->at[text->left - 1] == '\n' || text->at[text->left - 1] == '\0'))
		text->left--;
}

void syslog_translate(const char *datagram, size_t size, void (*emit)(const char *line, size_t size))
{
	struct text text = {.at = datagram, .left = size};
	struct line line = {.emit = emit};
	trim(&text);
	int severity = take_severity(&text);
	skip_timestamp(&text);
	const char *tag = text.at;
	size_t tag_size = take_tag(&text);
	line.used = (size_t)snprintf(line.bytes, sizeof line.bytes, "<%d>%.*s%s", severity,
		(int)tag_size, tag, tag_size > 0 ? ": " : "");
	line.prefix = line.used;
	for (size_t i = 0; i < text.left; i++)
		append_escaped(&line, text.at[i]);
	line.bytes[line.used++] = '\n';
	emit(line.bytes, line.used);
}
