/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's file system: the image as root, and what is laid over it. */
#ifndef APPLIANCE_MOUNTS_H
#define APPLIANCE_MOUNTS_H

#include "plan.h"

/* /proc and /dev in the initramfs: needed to read the disks and to report a failure. */
void mount_kernel_filesystems(void);

/* Makes the image the root directory, with /proc, /dev, /sys and, on tmpfs, /run, /tmp and the plan's. */
void mount_image(const struct plan *plan);

/* Lays `source` over `target` if the image has a plain file there; a symbolic link is the image's choice. */
void cover_file(const char *source, const char *target);

/* The data volume, /dev/ubdb. */
void mount_data(const char *target);

/* Unmounts the data volume, if any, so that its journal is clean. */
void mounts_release(void);

#endif
