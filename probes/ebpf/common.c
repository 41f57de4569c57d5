/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What all programs need: first in each text.
 */

enum { false, true };

/* Lest clang see through a number, and make one comparison of two, or a branch of arithmetic: where the verifier can't
 * follow, or goes every way again. */
#define OPAQUE(number) asm volatile("" : "+r"(number))

BPF_ARRAY(watched_ports, u64, 65536 / 64); /* a bit for each port */

static inline bool is_watched(u16 port)
{
    int word = port / 64;
    u64 *ports = watched_ports.lookup(&word);
    return ports && (*ports >> (port % 64)) & 1;
}
