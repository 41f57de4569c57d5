/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * All that bcc's own headers ask of the kernel's, for a program that looks into no kernel structure: bcc includes
 * this file first, whatever it compiles. The other files of this folder exist because bcc includes them too, by
 * name; those that define nothing are not needed here. So no header package need be installed.
 */
#ifndef SMTP_HORIZON_KCONFIG_H
#define SMTP_HORIZON_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1 /* bcc's helpers.h refuses to go on without */

#include <linux/types.h>

#endif
