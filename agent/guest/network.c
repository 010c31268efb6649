/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network in one rtnetlink(7) datagram: all requests are packed behind each other, each asking for an
 * acknowledgement, and all answers come back in one read or two.
 */
#include "network.h"

#include "finish.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	REQUESTS_MAX = 3 * PLAN_ADDRESSES_MAX,
	REQUEST_BYTES_MAX = 128,
	NAME_BYTES = 80,
};

/* What a request was about, for the message if the kernel refuses it. */
struct request {
	char name[NAME_BYTES];
};

struct batch {
	int socket;
	size_t used;
	size_t count;
	struct request request[REQUESTS_MAX];
	_Alignas(struct nlmsghdr) char bytes[REQUESTS_MAX * REQUEST_BYTES_MAX];
};

static struct batch batch;

static struct nlmsghdr *begin(uint16_t type, uint16_t flags, const void *header, size_t header_size)
{
	if (batch.count == REQUESTS_MAX)
		fail(EXIT_NETWORK, "network: too many addresses and devices");
	struct nlmsghdr *message = (void *)(batch.bytes + batch.used);
	*message = (struct nlmsghdr){
		.nlmsg_len = (uint32_t)NLMSG_LENGTH(header_size),
		.nlmsg_type = type,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags,
		.nlmsg_seq = (uint32_t)batch.count,     /* finds the request again in the answer */
	};
	memcpy(NLMSG_DATA(message), header, header_size);
	return message;
}

static void attribute(struct nlmsghdr *message, uint16_t type, const void *value, size_t size)
{
	struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), value, size);
	message->nlmsg_len = (uint32_t)(NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len));
}

static void end(struct nlmsghdr *message, const char *what, const char *name)
{
	snprintf(batch.request[batch.count++].name, NAME_BYTES, "%s %s", what, name);
	batch.used += NLMSG_ALIGN(message->nlmsg_len);
}

static int device_index(const char *device)
{
	struct ifreq request = {0};
	memcpy(request.ifr_name, device, sizeof request.ifr_name);
	if (ioctl(batch.socket, SIOCGIFINDEX, &request) < 0)
		fail(EXIT_NETWORK, "network: no device %s: %s", device, strerror(errno));
	return request.ifr_ifindex;
}

static size_t address_size(int family)
{
	return family == AF_INET6 ? 16 : 4;
}

static const char *address_text(const struct plan_address *address, char text[INET6_ADDRSTRLEN])
{
	return inet_ntop(address->family, address->bytes, text, INET6_ADDRSTRLEN);
}

static void bring_up(const char *device, unsigned mtu)
{
	const struct ifinfomsg header = {
		.ifi_index = device_index(device), .ifi_flags = IFF_UP, .ifi_change = IFF_UP,
	};
	struct nlmsghdr *message = begin(RTM_NEWLINK, 0, &header, sizeof header);
	if (mtu != 0)
		attribute(message, IFLA_MTU, &mtu, sizeof mtu);
	end(message, "device", device);
}

/* The host hands out every address once: duplicate address detection would only cost a second. */
static void add_address(const struct plan_address *address)
{
	char text[INET6_ADDRSTRLEN];
	const struct ifaddrmsg header = {
		.ifa_family = (uint8_t)address->family,
		.ifa_prefixlen = (uint8_t)address->prefix,
		.ifa_flags = IFA_F_PERMANENT | (address->family == AF_INET6 ? IFA_F_NODAD : 0),
		.ifa_index = (uint32_t)device_index(address->device),
	};
	size_t size = address_size(address->family);
	struct nlmsghdr *message = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
	attribute(message, IFA_LOCAL, address->bytes, size);
	attribute(message, IFA_ADDRESS, address->bytes, size);
	if (address->family == AF_INET && address->prefix < 31) {
		struct in_addr broadcast;
		memcpy(&broadcast, address->bytes, sizeof broadcast);
		broadcast.s_addr |= htonl(UINT32_MAX >> address->prefix);
		attribute(message, IFA_BROADCAST, &broadcast, sizeof broadcast);
	}
	end(message, "address", address_text(address, text));
}

static bool link_local(const struct plan_address *address)
{
	return address->family == AF_INET6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

/* A link-local gateway is none without a device; it is then behind the first one. */
static void add_default_route(const struct plan *plan, const struct plan_address *gateway)
{
	char text[INET6_ADDRSTRLEN];
	const struct rtmsg header = {
		.rtm_family = (uint8_t)gateway->family,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_STATIC,
		.rtm_scope = RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST,
	};
	struct nlmsghdr *message = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
	attribute(message, RTA_GATEWAY, gateway->bytes, address_size(gateway->family));
	if (link_local(gateway) && plan->addresses.count > 0) {
		int device = device_index(plan->addresses.item[0].device);
		attribute(message, RTA_OIF, &device, sizeof device);
	}
	end(message, "gateway", address_text(gateway, text));
}

static void take_answer(const struct nlmsghdr *answer)
{
	const struct nlmsgerr *result = NLMSG_DATA(answer);
	if (answer->nlmsg_type != NLMSG_ERROR || answer->nlmsg_len < NLMSG_LENGTH(sizeof *result)
	    || answer->nlmsg_seq >= batch.count)
		fail(EXIT_NETWORK, "network: unexpected answer of the kernel");
	if (result->error != 0)
		fail(EXIT_NETWORK, "network: %s: %s", batch.request[answer->nlmsg_seq].name, strerror(-result->error));
}

static void commit(void)
{
	_Alignas(struct nlmsghdr) char answers[8192];
	size_t outstanding = batch.count;
	if (send(batch.socket, batch.bytes, batch.used, 0) < 0)
		fail(EXIT_NETWORK, "network: cannot send to the kernel: %s", strerror(errno));
	while (outstanding > 0) {
		ssize_t size = recv(batch.socket, answers, sizeof answers, 0);
		if (size < 0)
			fail(EXIT_NETWORK, "network: no answer of the kernel: %s", strerror(errno));
		const struct nlmsghdr *answer = (const void *)answers;
		for (size_t left = (size_t)size; NLMSG_OK(answer, left); answer = NLMSG_NEXT(answer, left)) {
			take_answer(answer);
			outstanding--;
		}
	}
}

static void set_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		fail(EXIT_NETWORK, "network: cannot write %s: %s", path, strerror(errno));
	close(fd);
}

static void set_option(const char *family, const char *device, const char *option, const char *value)
{
	char path[96];
	snprintf(path, sizeof path, "/proc/sys/net/%s/conf/%s/%s", family, device, option);
	set_sysctl(path, value);
}

/* A checker that binds what it is to check finds none of the appliance's addresses in a guest without network. */
static void allow_missing_addresses(void)
{
	set_sysctl("/proc/sys/net/ipv4/ip_nonlocal_bind", "1");
	set_sysctl("/proc/sys/net/ipv6/ip_nonlocal_bind", "1");
}

static bool has_ipv6(const struct plan *plan, const char *device)
{
	for (size_t i = 0; i < plan->addresses.count; i++) {
		const struct plan_address *address = &plan->addresses.item[i];
		if (address->family == AF_INET6 && strcmp(address->device, device) == 0)
			return true;
	}
	return false;
}

/*
 * A device has the addresses of the plan and no others: no router's word, no link-local one uninvited. It announces
 * them when it comes up (gratuitous ARP, unsolicited NA), for another guest may have had them a moment ago.
 */
static void set_options(const struct plan *plan, const char *device)
{
	set_option("ipv4", device, "arp_notify", "1");
	if (has_ipv6(plan, device)) {
		set_option("ipv6", device, "accept_ra", "0");
		set_option("ipv6", device, "accept_dad", "0");
		set_option("ipv6", device, "ndisc_notify", "1");
	} else {
		set_option("ipv6", device, "disable_ipv6", "1");
	}
}

static unsigned mtu_of(const struct plan *plan, const char *device)
{
	for (size_t i = 0; i < plan->mtu_count; i++)
		if (strcmp(plan->mtu[i].device, device) == 0)
			return plan->mtu[i].bytes;
	return 0;
}

static bool first_of_device(const struct plan *plan, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (strcmp(plan->addresses.item[i].device, plan->addresses.item[index].device) == 0)
			return false;
	return true;
}

void network_configure(const struct plan *plan)
{
	batch.socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (batch.socket < 0)
		fail(EXIT_NETWORK, "network: cannot open a netlink socket: %s", strerror(errno));
	bring_up("lo", 0);
	if (plan->until_check)
		allow_missing_addresses();
	for (size_t i = 0; i < plan->addresses.count; i++) {
		if (first_of_device(plan, i))
			set_options(plan, plan->addresses.item[i].device);
		add_address(&plan->addresses.item[i]);
	}
	/* After the addresses: those that a device has when it comes up are announced. */
	for (size_t i = 0; i < plan->addresses.count; i++) {
		const char *device = plan->addresses.item[i].device;
		if (first_of_device(plan, i))
			bring_up(device, mtu_of(plan, device));
	}
	for (size_t i = 0; i < plan->gateways.count; i++)
		add_default_route(plan, &plan->gateways.item[i]);
	commit();
	close(batch.socket);
}
