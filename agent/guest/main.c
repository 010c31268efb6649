/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process 1 of a guest, started by its kernel from the initramfs: boots an image by the host's boot plan
 * (plan.h) and supervises its one service. The contract is docs/interface-1.md.
 *
 * It is not a shell script because a fork costs milliseconds in User-Mode Linux, and because syslog, readiness
 * and reaping need sockets and epoll(7) anyway. It allocates no memory; every failure ends the guest with
 * one line of log, a STATUS= for the service manager and an exit code (finish.h).
 */
#include "clock.h"
#include "delivery.h"
#include "finish.h"
#include "identity.h"
#include "log.h"
#include "mounts.h"
#include "network.h"
#include "plan.h"
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_PLAN "/appliance/boot"

static struct plan plan;
static char plan_text[PLAN_MAX_BYTES + 1];

/* The console is opened for us by the kernel; standard input of everything here is /dev/null. */
static void close_standard_input(void)
{
	int null = open("/dev/null", O_RDWR);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		fail(EXIT_RUNTIME, "cannot open /dev/null: %s", strerror(errno));
	if (null != STDIN_FILENO)
		close(null);
}

static void set_limit(int resource, rlim_t soft, rlim_t hard)
{
	const struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
	if (setrlimit(resource, &limit) < 0)
		fail(EXIT_RUNTIME, "cannot set a resource limit: %s", strerror(errno));
}

/* What everything started here inherits. */
static void set_process_defaults(void)
{
	umask(022);
	/* As systemd has it: a low soft limit for the sake of select(2), a high hard one to be raised to. */
	set_limit(RLIMIT_NOFILE, 1024, 524288);
	set_limit(RLIMIT_CORE, 0, RLIM_INFINITY);
	/* Only the host restarts or stops a guest; init itself keeps the capability. */
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT) < 0)
		fail(EXIT_RUNTIME, "cannot drop a capability: %s", strerror(errno));
	/* The host's ctrl-alt-del becomes a SIGINT for init instead of a restart. */
	if (reboot(RB_DISABLE_CAD) < 0)
		fail(EXIT_RUNTIME, "cannot take over ctrl-alt-del: %s", strerror(errno));
}

static void load_plan(void)
{
	char error[256];
	int fd = open(BOOT_PLAN, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(EXIT_BOOT_PLAN, "no boot plan: %s: %s", BOOT_PLAN, strerror(errno));
	ssize_t size = read(fd, plan_text, sizeof plan_text);
	if (size < 0 || size > PLAN_MAX_BYTES)
		fail(EXIT_BOOT_PLAN, "boot plan: %s", size < 0 ? strerror(errno) : "longer than 64 KiB");
	close(fd);
	if (!plan_parse(&plan, plan_text, (size_t)size, error, sizeof error))
		fail(EXIT_BOOT_PLAN, "%s", error);
}

int main(void)
{
	int64_t started_us = clock_us();
	log_open();
	mount_kernel_filesystems();
	notify_open();
	close_standard_input();
	set_process_defaults();
	load_plan();
	mount_image(&plan);
	delivery_watch();               /* before names are read: those that come after that are heard of */
	identity_configure(&plan);
	network_configure(&plan);
	if (plan.data != NULL)
		mount_data(plan.data);
	supervise(&plan, started_us);
}
