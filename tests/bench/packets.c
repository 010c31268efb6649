/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts how many smallest Ethernet frames a second pass between two machines: UDP datagrams of 18 bytes.
 *
 *     packets serve               in the guest: receives, answers, sends when asked
 *     packets to ADDRESS MS       on the host: sends; prints how many arrived each second, how many were lost, and sent
 *     packets from ADDRESS MS     the same of what the server sends
 *     packets ask ADDRESS MS      the same of questions that the server answers one by one
 *
 * What is sent to the server waits for acknowledgements, so that there is always something under way and never more
 * than queues hold: a flood would measure how fast a guest drops. iperf3 floods, and makes three system calls for each
 * packet, which in a guest cost more than the packet does.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
	PORT = 5202,
	BATCH = 32,
	UNDER_WAY = 128,
	PATIENCE_US = 100000,
	ATTEMPTS = 50,
	BUFFER_BYTES = 4 << 20,
};

enum kind { DATA, QUESTION, RESET, ACKNOWLEDGE, SEND };

struct datagram {
	uint32_t kind;
	uint32_t number;        /* packets so far, or milliseconds to send for */
	char padding[10];
} __attribute__((packed));

static struct datagram buffers[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];
static struct sockaddr_in peers[BATCH];

static void prepare_batch(void)
{
	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){&buffers[i], sizeof buffers[i]};
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &vectors[i], .msg_iovlen = 1,
		};
	}
}

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int open_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		err(1, "socket");
	return fd;
}

static int receive_batch(int fd)
{
	for (int i = 0; i < BATCH; i++)
		messages[i].msg_hdr.msg_namelen = sizeof peers[i];
	return recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
}

static void tell(int fd, const struct sockaddr_in *to, enum kind kind, uint32_t number)
{
	struct datagram datagram = {.kind = kind, .number = number};
	sendto(fd, &datagram, sizeof datagram, 0, (const struct sockaddr *)to, sizeof *to);
}

/* Sends as many as possible for that time. */
static uint32_t send_for(int fd, const struct sockaddr_in *to, uint32_t duration_ms)
{
	int64_t end = now_us() + duration_ms * 1000LL;
	uint32_t sent = 0;
	for (int i = 0; i < BATCH; i++) {
		buffers[i] = (struct datagram){.kind = DATA};
		peers[i] = *to;
	}
	while (now_us() < end) {
		int count = sendmmsg(fd, messages, BATCH, 0);
		if (count > 0)
			sent += (uint32_t)count;
	}
	return sent;
}

/* ---- the server ------------------------------------------------------------------------------------------------- */

static uint32_t received;
static uint32_t acknowledged;

static void answer(int fd, const struct datagram *datagram, const struct sockaddr_in *peer)
{
	struct sockaddr_in to = *peer;
	switch (datagram->kind) {
	case DATA:
		received++;
		break;
	case QUESTION:
		tell(fd, &to, QUESTION, 0);
		break;
	case RESET:
		received = acknowledged = 0;
		tell(fd, &to, ACKNOWLEDGE, 0);
		break;
	case ACKNOWLEDGE:
		tell(fd, &to, ACKNOWLEDGE, received);
		break;
	case SEND:
		received = send_for(fd, &to, datagram->number);
		break;
	}
}

static void serve(void)
{
	int fd = open_socket();
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0)
		err(1, "bind");
	for (;;) {
		int count = receive_batch(fd);
		for (int i = 0; i < count; i++)
			answer(fd, &buffers[i], &peers[i]);
		if (count > 0 && received - acknowledged >= BATCH) {
			acknowledged = received;
			tell(fd, &peers[0], ACKNOWLEDGE, received);
		}
	}
}

/* ---- the client ------------------------------------------------------------------------------------------------- */

/* The next thing the server says that is no data; false where it says nothing. */
static bool hear(int fd, struct datagram *heard)
{
	return recv(fd, heard, sizeof *heard, 0) == sizeof *heard && heard->kind != DATA;
}

static void report(uint32_t arrived, int64_t duration_us, uint32_t lost, uint32_t sent)
{
	printf("%.0f %u %u\n", arrived * 1e6 / (double)duration_us, lost, sent);
}

static void reset(int fd, const struct sockaddr_in *server)
{
	struct datagram heard;
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		tell(fd, server, RESET, 0);
		while (hear(fd, &heard))
			if (heard.kind == ACKNOWLEDGE && heard.number == 0)
				return;
	}
	errx(1, "no answer");
}

static void measure_to(int fd, const struct sockaddr_in *server, uint32_t duration_ms)
{
	struct datagram heard;
	uint32_t sent = 0, arrived = 0, lost = 0;
	reset(fd, server);
	int64_t begin = now_us(), end = begin + duration_ms * 1000LL, last = begin;
	while (now_us() < end) {
		for (; sent - lost - arrived < UNDER_WAY; sent++)
			tell(fd, server, DATA, 0);
		if (!hear(fd, &heard)) {        /* what was lost leads to silence */
			tell(fd, server, ACKNOWLEDGE, 0);
			if (!hear(fd, &heard))
				continue;
			lost = sent - heard.number;
		}
		arrived = heard.number;
		last = now_us();
	}
	report(arrived, last - begin, lost, sent);
}

static void measure_ask(int fd, const struct sockaddr_in *server, uint32_t duration_ms)
{
	uint32_t sent = 0, arrived = 0, lost = 0;
	reset(fd, server);
	int64_t begin = now_us(), end = begin + duration_ms * 1000LL, last = begin;
	while (now_us() < end) {
		for (; sent - lost - arrived < UNDER_WAY; sent++)
			tell(fd, server, QUESTION, 0);
		int count = receive_batch(fd);
		if (count < 0)
			lost = sent - arrived;
		for (int i = 0; i < count; i++)
			arrived += buffers[i].kind == QUESTION;
		last = count > 0 ? now_us() : last;
	}
	report(arrived, last - begin, lost, sent);
}

static void measure_from(int fd, const struct sockaddr_in *server, uint32_t duration_ms)
{
	uint32_t arrived = 0;
	int64_t begin = 0, last = 0;
	reset(fd, server);
	tell(fd, server, SEND, duration_ms);
	for (int silences = 0; silences < ATTEMPTS;) {
		int count = receive_batch(fd);
		if (count < 0) {                /* that was all; how many should it have been? */
			silences++;
			tell(fd, server, ACKNOWLEDGE, 0);
			continue;
		}
		if (count > 0 && buffers[0].kind == ACKNOWLEDGE && buffers[0].number > 0) {
			uint32_t sent = buffers[0].number;
			report(arrived, last - begin, sent - arrived, sent);
			return;
		}
		for (int i = 0; i < count; i++)
			arrived += buffers[i].kind == DATA;
		last = now_us();
		begin = begin ? begin : last;
	}
	errx(1, "no answer");
}

int main(int argc, char *argv[])
{
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	prepare_batch();
	if (argc == 2 && strcmp(argv[1], "serve") == 0)
		serve();
	if (argc != 4 || inet_pton(AF_INET, argv[2], &server.sin_addr) != 1)
		errx(2, "usage: packets serve | to ADDRESS MS | from ADDRESS MS | ask ADDRESS MS");
	int fd = open_socket();
	struct timeval patience = {.tv_usec = PATIENCE_US};
	int buffer = BUFFER_BYTES;      /* this end is not what is measured */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0
		|| setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0)
		err(1, "setsockopt");
	void (*measure)(int, const struct sockaddr_in *, uint32_t) = measure_from;
	if (strcmp(argv[1], "to") == 0)
		measure = measure_to;
	else if (strcmp(argv[1], "ask") == 0)
		measure = measure_ask;
	measure(fd, &server, (uint32_t)atoi(argv[3]));
	return 0;
}
