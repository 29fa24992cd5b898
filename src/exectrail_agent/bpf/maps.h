/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The maps, with room for the longest record in `scratch`. */
#pragma once

#include "record.h"

#include <bpf/bpf_helpers.h>

#define TASKS_MAX 32768
#define SESSIONS_MAX 8192

/* How far each part of the data may reach; what one leaves, the next may use. */
#define CGROUP_LIMIT 2048
#define PARENT_CGROUP_LIMIT 4096
#define EXECUTABLE_LIMIT 8192
#define CWD_LIMIT 12288
#define PARENT_EXECUTABLE_LIMIT 14336
#define FILENAME_LIMIT (PARENT_EXECUTABLE_LIMIT + NAME)
#define IDS_LIMIT (FILENAME_LIMIT + TEXT_MAX)
#define ARGV_LIMIT (IDS_LIMIT + 2 * VALUE_MAX)

enum event { EXEC, FORK, EXIT, EVENTS };

struct scratch {
	struct exec_record record;
	__u8 data[ARGV_LIMIT + ARGV_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, EVENTS);
	__type(key, __u32);
	__type(value, __u32);
} jump SEC(".maps");

/* A hash, since task storage needs kernel 5.11 and can't be listed by an agent that comes back. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TASKS_MAX);
	__type(key, __u32);
	__type(value, struct mark);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SESSIONS_MAX);
	__type(key, __u64);
	__type(value, struct session);
} sessions SEC(".maps");

/* Apart from `sessions`: user space can't change one member of a value that the kernel counts in. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SESSIONS_MAX);
	__type(key, __u64);
	__type(value, __u32);
} dropped SEC(".maps");

/* Processes that were in sessions before anything was seen, by their pid as the agent counts. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TASKS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} adopted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

/* One for each CPU; a per-CPU map would allow 32 KiB. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline void count(__u32 cause)
{
	__u64 *total = bpf_map_lookup_elem(&losses, &cause);

	if (total)
		(*total)++;
}
