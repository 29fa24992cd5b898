/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where a process is: namespaces, cgroup, and its pid as the agent counts. */
#pragma once

#include "record.h"

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>

#define PID_LEVELS_MAX 33

enum controller { UNIFIED, PIDS, MEMORY, CPU, DEVICES };

/* Set before loading. */
const volatile struct {
	__u64 root_cgroup; /* of the agent's cgroup namespace; 0: all are its own */
	__u32 pid_namespace;
	__u32 controller;
	__u32 everything;
	__u32 reserved;
} config = {};

static __always_inline struct upid *number_at(struct pid *pid, __u32 level)
{
	return (void *)pid + bpf_core_field_offset(struct pid, numbers) +
	       level * bpf_core_type_size(struct upid);
}

/* Its pid in the agent's pid namespace; 0 if it has none there. */
static __always_inline __u32 own_pid(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 levels = BPF_CORE_READ(pid, level);

	for (__u32 level = 0; level < PID_LEVELS_MAX; level++) {
		struct upid *number = number_at(pid, level);

		if (level > levels)
			break;
		if (BPF_CORE_READ(number, ns, ns.inum) == config.pid_namespace)
			return BPF_CORE_READ(number, nr);
	}
	return 0;
}

static __always_inline __u32 pid_namespace_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid *innermost = number_at(pid, BPF_CORE_READ(pid, level));

	return BPF_CORE_READ(innermost, ns, ns.inum);
}

static __always_inline struct place place_of(struct task_struct *task)
{
	return (struct place){
		.cgroups = (__u64)BPF_CORE_READ(task, cgroups),
		.mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum),
		.pid_namespace = pid_namespace_of(task),
	};
}

static __always_inline bool differs(__u64 one, __u64 other)
{
	return one && other && one != other;
}

static __always_inline bool moved(const struct place *from, const struct place *to)
{
	return differs(from->cgroups, to->cgroups) ||
	       differs(from->mount_namespace, to->mount_namespace) ||
	       differs(from->pid_namespace, to->pid_namespace);
}

static __always_inline struct kernfs_node *cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state **states, *state = NULL;
	__u32 id;

	switch (config.controller) {
	case PIDS:
		id = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
		break;
	case MEMORY:
		id = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
		break;
	case CPU:
		id = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
		break;
	case DEVICES:
		id = bpf_core_enum_value(enum cgroup_subsys_id, devices_cgrp_id);
		break;
	default:
		return BPF_CORE_READ(set, dfl_cgrp, kn);
	}
	states = (void *)set + bpf_core_field_offset(struct css_set, subsys);
	bpf_probe_read_kernel(&state, sizeof(state), states + id);
	return BPF_CORE_READ(state, cgroup, kn);
}

static __always_inline struct kernfs_node *above(struct kernfs_node *node)
{
	struct kernfs_node___before_6_15 *older = (void *)node;

	if (bpf_core_field_exists(node->__parent))
		return BPF_CORE_READ(node, __parent);
	return BPF_CORE_READ(older, parent);
}
