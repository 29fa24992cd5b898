/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sessions and the processes in them. */
#pragma once

#include "maps.h"

#define DEPTH_MAX 4	    /* sessions in sessions */

static __always_inline void tell(__u32 kind, __u64 session, const struct mark *mark, __u32 host_pid,
				 __u32 status)
{
	struct head head = {
		.kind = kind,
		.status = status,
		.time = bpf_ktime_get_boot_ns(),
		.session = session,
		.start = mark ? mark->start : 0,
		.pid = mark ? mark->pid : 0,
		.host_pid = host_pid,
	};

	if (bpf_ringbuf_output(&ring, &head, sizeof(head), 0))
		count(kind == KIND_EXIT ? LOST_EXIT : LOST_END);
}

/* Open a session with one member; 0 if there is no room. The time makes the number unique. */
static __always_inline __u64 open_session(__u64 outer, __u32 depth)
{
	struct session session = {.outer = outer, .members = 1, .depth = depth};
	__u64 number = bpf_ktime_get_boot_ns();

	for (int attempt = 0; attempt < 4; attempt++, number++) {
		/* Before kernel 6.4 the upper half of what the call leaves means nothing. */
		int error = bpf_map_update_elem(&sessions, &number, &session, BPF_NOEXIST);

		if (!error)
			return number;
		if (error != -EEXIST)
			break;
	}
	return 0;
}

/* Take a member out of a session, and end what is empty then.
 *
 * Several CPUs may find the same session empty: the one whose deletion succeeds ends it. Nothing
 * but a member ever adds one, so an empty session stays empty.
 */
static __always_inline void leave(__u64 number)
{
	for (int depth = 0; depth <= DEPTH_MAX; depth++) {
		struct session *session = bpf_map_lookup_elem(&sessions, &number);
		__u64 outer;

		if (!session)
			return;
		outer = session->outer;
		__sync_fetch_and_add(&session->members, -1);
		if (*(volatile __u32 *)&session->members ||
		    bpf_map_delete_elem(&sessions, &number))
			return;
		if (bpf_map_delete_elem(&dropped, &number))
			tell(KIND_END, number, NULL, 0, 0);
		if (!outer)
			return;
		number = outer;
	}
}

/* Note the nearest ancestor that has run a program. */
static __always_inline void inherit_above(struct mark *child, const struct mark *parent)
{
	child->above_start = parent->has_run ? parent->start : parent->above_start;
	child->above_pid = parent->has_run ? parent->pid : parent->above_pid;
}

/* Make a process that is there already a member of a session, the first or one more; false if it is
 * a member of some session by now, or if there is no room. */
static __always_inline bool adopt(__u32 host_pid, const struct mark *mark)
{
	struct session one = {.members = 1};
	struct session *session = bpf_map_lookup_elem(&sessions, &mark->session);
	__u64 number = mark->session;
	int error; /* not long, as above */

	if (session) {
		__sync_fetch_and_add(&session->members, 1);
	} else if (bpf_map_update_elem(&sessions, &number, &one, BPF_NOEXIST)) {
		count(LOST_ENTRY);
		return false;
	}
	error = bpf_map_update_elem(&tasks, &host_pid, mark, BPF_NOEXIST);
	if (!error)
		return true;
	if (error != -EEXIST)
		count(LOST_FORK);
	leave(number);
	return false;
}

static __always_inline void forget(__u32 host_pid, __u64 number)
{
	if (!bpf_map_delete_elem(&tasks, &host_pid))
		leave(number);
}

static __always_inline bool is_dropped(__u64 number)
{
	return bpf_map_lookup_elem(&dropped, &number) || !bpf_map_lookup_elem(&sessions, &number);
}

/* A process of a session has gone elsewhere: an access of its own, should the session be none. With
 * no room for one more, what it runs there is told as the outer session's. */
static __always_inline __u64 open_inner(struct mark *mark)
{
	__u64 outer = mark->session, inner = 0;
	struct session *session = bpf_map_lookup_elem(&sessions, &outer);

	if (session && session->depth < DEPTH_MAX)
		inner = open_session(outer, session->depth + 1);
	/* The new session is a member of the old one in place of this process. */
	if (inner)
		mark->session = inner;
	else
		count(LOST_ENTRY);
	return inner;
}
