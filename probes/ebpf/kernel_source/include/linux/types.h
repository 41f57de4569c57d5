/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's names for integers, as bcc's headers use them. */
#ifndef SMTP_HORIZON_TYPES_H
#define SMTP_HORIZON_TYPES_H

typedef unsigned char __u8, u8;
typedef signed char __s8, s8;
typedef unsigned short __u16, u16, __be16, __le16, __sum16;
typedef signed short __s16, s16;
typedef unsigned int __u32, u32, __be32, __le32, __wsum;
typedef signed int __s32, s32;
typedef unsigned long long __u64, u64, __be64, __le64;
typedef signed long long __s64, s64;

#define __aligned_u64 __u64 __attribute__((aligned(8)))

typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;

#define NULL ((void *)0)

#endif
