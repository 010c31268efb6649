/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests need inside a guest and busybox does not have:
 *
 *     prober udp PORT             bind the port on [::] and wait
 *     prober send SOCKET TEXT…    send each text (with \n and \xNN understood) as one datagram to a local socket
 *     prober as UID COMMAND…      run a command as an unprivileged user
 *     prober random               whether getrandom(2) answers at once
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
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
	return 2;
}
