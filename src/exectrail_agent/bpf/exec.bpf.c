// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Which programs run after somebody has come into a container.
 *
 * A process that runs a program, and whose cgroups or mount or pid namespace are not its parent's,
 * opens a session; its children belong to it. All that a session's processes run, and their ends, go
 * to the ring. Of everything else nothing leaves the kernel.
 *
 * Three tiny programs are attached and jump to the three that do the work, so that those can be
 * replaced between one event and the next, with nothing told twice or left out.
 */
#include "sessions.h"
#include "text.h"

static __always_inline void describe(struct who *who, struct task_struct *leader,
				     const struct place *place)
{
	who->mount_namespace = place->mount_namespace;
	who->pid_namespace = place->pid_namespace;
	bpf_probe_read_kernel(who->comm, sizeof(who->comm), &leader->comm);
}

static __always_inline void describe_user(struct exec_record *record, struct task_struct *task)
{
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);

	record->uid = BPF_CORE_READ(task, cred, uid.val);
	record->gid = BPF_CORE_READ(task, cred, gid.val);
	record->login_uid = record->audit_session = -1;
	if (bpf_core_field_exists(task->loginuid)) {
		record->login_uid = BPF_CORE_READ(task, loginuid.val);
		record->audit_session = BPF_CORE_READ(task, sessionid);
	}
	if (!tty)
		return;
	record->flags |= FLAG_TTY;
	record->tty_major = BPF_CORE_READ(tty, driver, major);
	record->tty_minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
}

/* Close a part of the record that began at `begin`; return where the next one begins. */
static __always_inline __u64 close_part(struct exec_record *record, __u32 *length, __u64 begin,
					__u64 end, __u32 problem)
{
	if (end & CUT)
		record->unknown |= problem;
	end = (__u32)end;
	*length = end - begin;
	return end;
}

static __always_inline __u64 executable(struct exec_record *record, __u32 *length, __u64 begin,
					__u64 limit, struct task_struct *task, __u32 problem)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	__u64 end = begin | CUT;

	if (file)
		end = path_names((__u64)&file->f_path, (__u64)BPF_CORE_READ(task, fs), begin, limit);
	/* The root of a mount that is nowhere, as crun's of itself: its path says nothing. */
	if (file && end == begin) {
		struct scratch *out = this_scratch();

		if (out)
			end += append(out, begin, limit, NAME,
				      (__u64)BPF_CORE_READ(file, f_path.dentry, d_name.name));
	}
	if (problem == UNKNOWN_EXECUTABLE) {
		if (end & BARE)
			record->flags |= FLAG_BARE;
		if (file && !BPF_CORE_READ(file, f_inode, i_nlink))
			record->flags |= FLAG_UNLINKED;
	}
	return close_part(record, length, begin, end, problem);
}

/* Complete the record, of which the cgroup has been written, and send it. */
static __always_inline void send(struct scratch *out, struct task_struct *task,
				 struct task_struct *parent, struct linux_binprm *binary)
{
	struct exec_record *record = &out->record;
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	bool full = !record->head.session || record->flags & FLAG_ENTRY;
	__u64 offset = record->cgroup, length;

	describe_user(record, task);
	if (full)
		offset = close_part(record, &record->parent_cgroup, offset,
				    cgroup_names((__u64)cgroup_of(parent), offset, PARENT_CGROUP_LIMIT),
				    UNKNOWN_PARENT_CGROUP);
	offset = executable(record, &record->executable, offset, EXECUTABLE_LIMIT, task,
			    UNKNOWN_EXECUTABLE);
	offset = close_part(record, &record->cwd, offset,
			    path_names((__u64)&fs->pwd, (__u64)fs, offset, CWD_LIMIT), UNKNOWN_CWD);
	if (full)
		offset = executable(record, &record->parent_executable, offset,
				    PARENT_EXECUTABLE_LIMIT, parent, UNKNOWN_PARENT_EXECUTABLE);
	length = append(out, offset, FILENAME_LIMIT, TEXT_MAX, (__u64)BPF_CORE_READ(binary, filename));
	if (!length)
		record->unknown |= UNKNOWN_FILENAME;
	record->filename = length;
	offset += length;
	if (record->flags & FLAG_ENTRY)
		offset = close_part(record, &record->environment, offset,
				    environment_ids(BPF_CORE_READ(mm, env_start),
						    BPF_CORE_READ(mm, env_end), offset),
				    UNKNOWN_ENVIRONMENT);
	record->argv_size = BPF_CORE_READ(mm, arg_end) - BPF_CORE_READ(mm, arg_start);
	offset = close_part(record, &record->argv, offset,
			    arguments(BPF_CORE_READ(mm, arg_start), BPF_CORE_READ(mm, arg_end), offset),
			    UNKNOWN_ARGV);
	asm volatile("" : "+r"(offset));
	if (offset > sizeof(out->data) ||
	    bpf_ringbuf_output(&ring, record, sizeof(*record) + offset, 0))
		count(LOST_EXEC);
}

SEC("raw_tp")
int at_exec(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *task = (void *)context->args[0];
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent_leader = BPF_CORE_READ(parent, group_leader);
	__u32 host_pid = BPF_CORE_READ(task, tgid), above_pid = 0;
	struct mark *mark = bpf_map_lookup_elem(&tasks, &host_pid);
	struct place here = place_of(task), there = place_of(parent);
	__u64 start = BPF_CORE_READ(task, start_boottime), session = 0, outer = 0, above_start = 0;
	struct exec_record *record;
	struct kernfs_node *cgroup;
	struct scratch *out;
	bool entry = false;

	if (mark && (mark->start != start || is_dropped(mark->session))) {
		forget(host_pid, mark->session);
		mark = NULL;
	}
	if (mark) {
		session = mark->session;
		if (moved(&mark->place, &here)) {
			__u64 inner = open_inner(mark);

			if (inner) {
				outer = session;
				session = inner;
				entry = true;
			}
		}
		mark->place = here;
		mark->has_run = true;
		above_start = mark->above_start;
		above_pid = mark->above_pid;
	} else {
		entry = moved(&there, &here);
		if (!entry && !config.everything)
			return 0;
	}

	out = this_scratch();
	if (!out)
		return 0;
	record = &out->record;
	__builtin_memset(record, 0, sizeof(*record));
	cgroup = cgroup_of(task);
	record->head.pid = own_pid(leader);
	if (entry || !session) {
		__u64 end = cgroup_names((__u64)cgroup, 0, CGROUP_LIMIT);

		close_part(record, &record->cgroup, 0, end, UNKNOWN_CGROUP);
		if (!mark && (end & OUTSIDE || !record->head.pid))
			return 0;
	}
	if (entry && !mark) {
		struct mark new = {
			.start = start,
			.place = here,
			.pid = record->head.pid,
			.has_run = true,
		};

		new.session = session = open_session(0, 0);
		if (!session || bpf_map_update_elem(&tasks, &host_pid, &new, BPF_ANY)) {
			bpf_map_delete_elem(&sessions, &session);
			count(LOST_ENTRY);
			return 0;
		}
	}
	record->head.kind = KIND_EXEC;
	record->flags = entry ? FLAG_ENTRY : 0;
	record->head.time = bpf_ktime_get_boot_ns();
	record->head.session = session;
	record->head.start = start;
	record->head.host_pid = host_pid;
	record->above_start = above_start;
	record->above_pid = above_pid;
	record->parent_start = BPF_CORE_READ(parent_leader, start_boottime);
	record->parent_pid = own_pid(parent_leader);
	record->parent_host_pid = BPF_CORE_READ(parent, tgid);
	record->outer = outer;
	record->cgroup_id = BPF_CORE_READ(cgroup, id);
	describe(&record->task, leader, &here);
	describe(&record->parent, parent_leader, &there);
	send(out, task, parent, (void *)context->args[2]);
	return 0;
}

SEC("raw_tp")
int at_fork(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *child = (void *)context->args[1];
	struct task_struct *parent = (void *)context->args[0];
	__u32 host_pid = BPF_CORE_READ(parent, tgid), child_pid = BPF_CORE_READ(child, tgid);
	struct mark *mark = bpf_map_lookup_elem(&tasks, &host_pid), inherited;
	struct session *session;

	/* A thread is no process of its own. */
	if (!mark || child_pid != (__u32)BPF_CORE_READ(child, pid))
		return 0;
	if (is_dropped(mark->session)) {
		forget(host_pid, mark->session);
		return 0;
	}
	inherited = *mark;
	inherited.start = BPF_CORE_READ(child, start_boottime);
	inherited.pid = own_pid(child);
	inherit_above(&inherited, mark);
	inherited.has_run = false;
	session = bpf_map_lookup_elem(&sessions, &inherited.session);
	if (!session)
		return 0;
	__sync_fetch_and_add(&session->members, 1);
	if (bpf_map_update_elem(&tasks, &child_pid, &inherited, BPF_ANY)) {
		__sync_fetch_and_add(&session->members, -1);
		count(LOST_FORK);
	}
	return 0;
}

SEC("raw_tp")
int at_exit(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *task = (void *)context->args[0];
	__u32 host_pid = BPF_CORE_READ(task, tgid), status;
	struct mark *found = bpf_map_lookup_elem(&tasks, &host_pid), mark;

	if (!found || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	mark = *found;
	/* Two last threads may both come here: one of them deletes. */
	if (bpf_map_delete_elem(&tasks, &host_pid))
		return 0;
	if (mark.has_run && !is_dropped(mark.session)) {
		status = BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT ?
				 BPF_CORE_READ(task, signal, group_exit_code) :
				 BPF_CORE_READ(task, group_leader, exit_code);
		tell(KIND_EXIT, mark.session, &mark, host_pid, status);
	}
	leave(mark.session);
	return 0;
}

/* For each process that there is, once: put those that the agent has found into their sessions. */
SEC("iter/task")
int at_start(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task, *parent;
	__u32 host_pid, parent_pid;
	struct mark new = {.has_run = true}, *above;
	__u64 *number;

	if (!task)
		return 0;
	host_pid = BPF_CORE_READ(task, tgid);
	if (host_pid != (__u32)BPF_CORE_READ(task, pid))
		return 0;
	new.pid = own_pid(task);
	number = bpf_map_lookup_elem(&adopted, &new.pid);
	if (number) {
		new.session = *number;
	} else {
		/* Born after the agent has looked. */
		parent = BPF_CORE_READ(task, real_parent);
		parent_pid = BPF_CORE_READ(parent, tgid);
		above = bpf_map_lookup_elem(&tasks, &parent_pid);
		if (!above || is_dropped(above->session))
			return 0;
		new.session = above->session;
		inherit_above(&new, above);
	}
	new.start = BPF_CORE_READ(task, start_boottime);
	new.place = place_of(task);
	/* If its end comes meanwhile, one of the two takes it out again. */
	if (adopt(host_pid, &new) && !BPF_CORE_READ(task, signal, live.counter))
		forget(host_pid, new.session);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *context)
{
	bpf_tail_call(context, &jump, EXEC);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *context)
{
	bpf_tail_call(context, &jump, FORK);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *context)
{
	bpf_tail_call(context, &jump, EXIT);
	return 0;
}

/* The helpers that read memory are given to programs under the GPL alone. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
