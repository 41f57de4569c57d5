/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* bcc's headers choose by it between spellings of the kernel's; the oldest kernel that filter.c runs on. */
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
