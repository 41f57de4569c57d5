/* Loads every program that was recorded, on the kernel that runs, and says what its verifier thinks of it.
 *
 *     try_programs FILE
 *
 * FILE is written by verifier.py. The answer is one JSON object a line, for each program; strings in it hold nothing
 * that JSON would want escaped, but for the verifier's own words, which are given as hexadecimal digits.
 *
 * A set is the maps and programs of one text. Each is tried in a process of its own, which, where the set says so, gives
 * up all capabilities but CAP_NET_RAW and CAP_BPF first. Each filter is attached to a socket, too: a program that the
 * kernel loads may be larger than what it lets a socket hold (net.core.optmem_max).
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_BYTES 64
#define MOST 128
#define LAST_WORDS 1200
#define STATISTICS_ONLY 4 /* BPF_LOG_STATS of linux/bpf_verifier.h */

struct set {
    char name[NAME_BYTES];
    unsigned int without_perfmon, maps, programs;
};

struct map {
    unsigned int kind, key_bytes, value_bytes, entries, flags;
};

struct program {
    char name[NAME_BYTES];
    unsigned int kind, instructions;
};

static char said[16 << 20];

static int bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static void take(void *into, size_t bytes, FILE *file)
{
    if (fread(into, 1, bytes, file) != bytes) {
        fprintf(stderr, "try_programs: the file ends too early\n");
        exit(2);
    }
}

static void give_up_perfmon(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct kept[2] = {
        {.effective = 1u << CAP_NET_RAW, .permitted = 1u << CAP_NET_RAW},
        {.effective = 1u << (CAP_BPF - 32), .permitted = 1u << (CAP_BPF - 32)},
    };
    if (syscall(SYS_capset, &header, kept)) {
        perror("try_programs: capset");
        exit(2);
    }
}

static int load(struct program *program, struct bpf_insn *code, unsigned int level)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = program->kind;
    attributes.insns = (unsigned long)code;
    attributes.insn_cnt = program->instructions;
    attributes.license = (unsigned long)"GPL";
    attributes.log_level = level;
    attributes.log_buf = (unsigned long)said;
    attributes.log_size = sizeof said;
    said[0] = 0;
    return bpf(BPF_PROG_LOAD, &attributes);
}

static int attach(int descriptor)
{
    int packets = socket(AF_PACKET, SOCK_DGRAM, 0);
    if (packets < 0)
        return errno;
    int failed = setsockopt(packets, SOL_SOCKET, SO_ATTACH_BPF, &descriptor, sizeof descriptor) ? errno : 0;
    close(packets);
    return failed;
}

static void try_set(struct set *set, FILE *file, const char *release)
{
    int maps[MOST], programs[MOST];
    struct program about[MOST];
    if (set->maps > MOST || set->programs > MOST)
        exit(2);
    if (set->without_perfmon)
        give_up_perfmon();
    for (unsigned int each = 0; each < set->maps; each++) {
        struct map map;
        take(&map, sizeof map, file);
        union bpf_attr attributes;
        memset(&attributes, 0, sizeof attributes);
        attributes.map_type = map.kind;
        attributes.key_size = map.key_bytes;
        attributes.value_size = map.value_bytes;
        attributes.max_entries = map.entries;
        attributes.map_flags = map.flags;
        maps[each] = bpf(BPF_MAP_CREATE, &attributes);
        if (maps[each] < 0) {
            fprintf(stderr, "try_programs: %s: map %u (type %u): %s\n", set->name, each, map.kind, strerror(errno));
            exit(2);
        }
    }
    for (unsigned int each = 0; each < set->programs; each++) {
        struct program *program = &about[each];
        take(program, sizeof *program, file);
        struct bpf_insn *code = calloc(program->instructions, sizeof *code);
        take(code, program->instructions * sizeof *code, file);
        for (unsigned int at = 0; at < program->instructions; at++)
            if (code[at].code == (BPF_LD | BPF_DW | BPF_IMM)) {
                if (code[at].src_reg == BPF_PSEUDO_MAP_FD)
                    code[at].imm = maps[code[at].imm];
                at++;
            }
        programs[each] = load(program, code, STATISTICS_ONLY);
        int error = programs[each] < 0 ? errno : 0;
        int walked = -1;
        char *statistics = strstr(said, "processed ");
        if (statistics)
            sscanf(statistics, "processed %d", &walked);
        printf("{\"kernel\": \"%s\", \"set\": \"%s\", \"program\": \"%s\", \"instructions\": %u, \"walked\": %d, ", release,
               set->name, program->name, program->instructions, walked);
        printf("\"refused\": \"%s\", \"attaching\": \"%s\", \"words\": \"", error ? strerror(error) : "",
               !error && program->kind == BPF_PROG_TYPE_SOCKET_FILTER ? strerror(attach(programs[each])) : "");
        if (error) {
            load(program, code, 1);
            size_t length = strlen(said);
            for (char *at = said + (length > LAST_WORDS ? length - LAST_WORDS : 0); *at; at++)
                printf("%02x", (unsigned char)*at);
        }
        printf("\"}\n");
        fflush(stdout);
        free(code);
    }
}

static void skip(struct set *set, FILE *file)
{
    fseek(file, (long)set->maps * sizeof(struct map), SEEK_CUR);
    for (unsigned int each = 0; each < set->programs; each++) {
        struct program program;
        take(&program, sizeof program, file);
        fseek(file, (long)program.instructions * sizeof(struct bpf_insn), SEEK_CUR);
    }
}

int main(int count, char **words)
{
    FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: try_programs FILE\n");
        return 2;
    }
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MEMLOCK, &unlimited); /* before Linux 5.11 maps are counted by it */
    struct utsname kernel;
    uname(&kernel);
    unsigned int sets;
    take(&sets, sizeof sets, file);
    int status = 0;
    while (sets--) {
        struct set set;
        take(&set, sizeof set, file);
        long at = ftell(file);
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            fclose(file);
            file = fopen(words[1], "rb"); /* its place in the file is not shared then */
            if (!file || fseek(file, at, SEEK_SET))
                exit(2);
            try_set(&set, file, kernel.release);
            exit(0);
        }
        int ended = 0;
        if (child < 0 || waitpid(child, &ended, 0) < 0 || ended)
            status = 1;
        skip(&set, file);
    }
    return status;
}
