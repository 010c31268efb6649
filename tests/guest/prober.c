/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests need inside a guest and busybox does not have:
 *
 *     prober udp PORT             bind the port on [::] and wait
 *     prober send SOCKET TEXT…    send each text (with \n and \xNN understood) as one datagram to a local socket
 *     prober as UID COMMAND…      run a command as an unprivileged user
 *     prober random               whether getrandom(2) answers at once
 *     prober ask dns|http COUNT   a query each 2 ms, for www.example.test or http://127.0.0.1/; says how many were lost
 *     prober resolve NAME         its addresses, as getaddrinfo(3) finds them
 *     prober follow FILE SIZE     read the file again and again: says what its last line is when it has changed, and
 *                                 "lost" when its first SIZE bytes are not what they were
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int bind_udp(const char *port)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		perror("bind");
		return 1;
	}
	for (;;)
		pause();
}

static size_t unescape(const char *text, char *bytes)
{
	size_t size = 0;
	while (*text != '\0') {
		if (strncmp(text, "\\n", 2) == 0) {
			bytes[size++] = '\n';
			text += 2;
		} else if (strncmp(text, "\\x", 2) == 0) {
			char digits[3] = {text[2], text[3], '\0'};
			bytes[size++] = (char)strtoul(digits, NULL, 16);
			text += 4;
		} else {
			bytes[size++] = *text++;
		}
	}
	return size;
}

static int send_datagram(int fd, const char *path, const char *text)
{
	char bytes[16 * 1024];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	size_t size = unescape(text, bytes);
	if (sendto(fd, bytes, size, 0, (struct sockaddr *)&address, sizeof address) < 0) {
		perror(path);
		return 1;
	}
	return 0;
}

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int connect_to(int type, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	const struct timeval timeout = {.tv_sec = 1};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, type, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One socket for all queries, as a resolver has it. An answer must say NOERROR and have a record. */
static int ask_dns(int number)
{
	static int fd = -1;
	static const char question[] = "\1\0\0\1\0\0\0\0\0\0\3www\7example\4test\0\0\1\0\1";
	unsigned char query[2 + sizeof question - 1] = {(unsigned char)(number >> 8), (unsigned char)number};
	unsigned char answer[512];
	if (fd < 0)
		fd = connect_to(SOCK_DGRAM, 53);
	memcpy(query + 2, question, sizeof question - 1);
	if (send(fd, query, sizeof query, 0) < 0)
		return 0;
	for (;;) {
		ssize_t size = recv(fd, answer, sizeof answer, 0);
		if (size < 0)
			return 0;
		if (size >= 12 && answer[0] == query[0] && answer[1] == query[1])
			return (answer[3] & 0xf) == 0 && answer[7] > 0;
	}
}

static int ask_http(int number)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	char answer[512];
	(void)number;
	int fd = connect_to(SOCK_STREAM, 80);
	if (fd < 0)
		return 0;
	ssize_t size = send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
	if (size > 0)
		size = recv(fd, answer, sizeof answer - 1, 0);
	close(fd);
	answer[size > 0 ? size : 0] = '\0';
	return strstr(answer, " 200 ") != NULL;
}

static int ask(int (*one)(int number), int count)
{
	int lost = 0;
	int64_t longest_us = 0;
	for (int i = 0; i < count; i++) {
		int64_t from_us = now_us();
		if (!one(i))
			lost++;
		int64_t took_us = now_us() - from_us;
		if (took_us > longest_us)
			longest_us = took_us;
		if (took_us < 2000)
			usleep((useconds_t)(2000 - took_us));
	}
	printf("asked %d, lost %d, longest %.1f ms\n", count, lost, (double)longest_us / 1000.0);
	return 0;
}

static int resolve(const char *name)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
	char address[INET6_ADDRSTRLEN];
	struct addrinfo *found;
	int error = getaddrinfo(name, NULL, &hints, &found);
	if (error != 0) {
		printf("%s: %s\n", name, gai_strerror(error));
		return 1;
	}
	for (; found != NULL; found = found->ai_next) {
		getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST);
		printf("%s is %s\n", name, address);
	}
	return 0;
}

/* Piece by piece, as stdio has it: the file may change in between. */
static size_t read_whole(const char *path, char *bytes, size_t room)
{
	size_t size = 0;
	ssize_t count;
	int fd = open(path, O_RDONLY);
	while ((count = read(fd, bytes + size, room - size < 1000 ? room - size : 1000)) > 0)
		size += (size_t)count;
	close(fd);
	return size;
}

static void say_last_line(char *bytes, size_t size)
{
	while (size > 0 && bytes[size - 1] == '\n')
		size--;
	bytes[size] = '\0';
	const char *newline = strrchr(bytes, '\n');
	printf("last %s\n", newline != NULL ? newline + 1 : bytes);
	fflush(stdout);
}

static void follow(const char *path, size_t kept)
{
	static char first[256 * 1024], before[sizeof first], now[sizeof first];
	size_t size_before = 0;
	read_whole(path, first, sizeof first - 1);
	for (;; usleep(100)) {
		size_t size = read_whole(path, now, sizeof now - 1);
		if (size < kept || memcmp(now, first, kept) != 0) {
			puts("lost");
			fflush(stdout);
		}
		if (size == size_before && memcmp(now, before, size) == 0)
			continue;
		memcpy(before, now, size);
		size_before = size;
		say_last_line(now, size);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "udp") == 0)
		return bind_udp(argv[2]);
	if (argc >= 4 && strcmp(argv[1], "send") == 0) {
		int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		int failed = 0;
		for (int i = 3; i < argc; i++)
			failed |= send_datagram(fd, argv[2], argv[i]);
		return failed;
	}
	if (argc >= 4 && strcmp(argv[1], "as") == 0) {
		if (setuid((uid_t)atoi(argv[2])) == 0)
			execv(argv[3], argv + 3);
		perror(argv[3]);
		return 1;
	}
	if (argc == 2 && strcmp(argv[1], "random") == 0) {
		char bytes[16];
		return getrandom(bytes, sizeof bytes, GRND_NONBLOCK) != sizeof bytes;
	}
	if (argc == 3 && strcmp(argv[1], "resolve") == 0)
		return resolve(argv[2]);
	if (argc == 4 && strcmp(argv[1], "follow") == 0)
		follow(argv[2], (size_t)atoi(argv[3]));
	if (argc == 4 && strcmp(argv[1], "ask") == 0)
		return ask(strcmp(argv[2], "dns") == 0 ? ask_dns : ask_http, atoi(argv[3]));
	return 2;
}
