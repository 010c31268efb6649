/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPLIANCE_IMAGE_H
#define APPLIANCE_IMAGE_H

/*
 * Makes sure that `path` is the file that was imported with this digest, and refuses otherwise. Unchanged since the
 * digest was last proven (same inode, size and times as in the stamp beside it) is enough; anything else is hashed.
 */
void check_image(const char *digest, const char *path);

#endif
