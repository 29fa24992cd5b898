/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What goes to user space, and what is kept over a change of the programs. layout.py is the other
 * half: who changes one changes the other, and LAYOUT.
 */
#pragma once

#include "kernel.h"

#define ARGV_MAX 32768
#define NAME 256 /* the longest name of a file or cgroup, and its NUL */
#define TEXT_MAX 4096
#define VALUE_MAX 128

enum kind { KIND_EXEC = 1, KIND_EXIT, KIND_END };

enum flag {
	FLAG_ENTRY = 1,	  /* opened `session` */
	FLAG_TTY = 2,
	FLAG_UNLINKED = 4, /* the file that runs has no name in any file system */
	FLAG_BARE = 8,	  /* `executable` is a name that no file system has, such as a memfd's */
};

/* What could not be read, or was longer than the sensor follows. */
enum unknown {
	UNKNOWN_ARGV = 1,
	UNKNOWN_CWD = 2,
	UNKNOWN_EXECUTABLE = 4,
	UNKNOWN_CGROUP = 8,
	UNKNOWN_PARENT_CGROUP = 16,
	UNKNOWN_PARENT_EXECUTABLE = 32,
	UNKNOWN_ENVIRONMENT = 64,
	UNKNOWN_FILENAME = 128,
};

enum loss {
	LOST_EXEC,	/* no room in the ring */
	LOST_EXIT,
	LOST_END,
	LOST_FORK,	/* a child of a session that could not be marked */
	LOST_ENTRY,	/* a session that could not be opened */
	LOSSES,
};

struct head {
	__u32 kind;
	__u32 status; /* of an exit, as wait tells it */
	__u64 session;
	__u64 time;
	__u64 start;
	__u32 pid;
	__u32 host_pid;
};

/* Where a process is, and by what name. */
struct who {
	__u32 mount_namespace;
	__u32 pid_namespace;
	char comm[16];
};

struct exec_record {
	struct head head;
	__u64 parent_start;
	__u64 above_start; /* the nearest ancestor in the session that has run a program */
	__u32 above_pid;
	__u32 parent_pid;
	__u32 parent_host_pid;
	__u32 unused;
	__u32 argv_size;
	__u32 argv; /* its length, last of the parts that follow the record */
	/* From here to argv records of alike programs are the same. */
	__u64 outer; /* the session in which this one was opened, or 0 */
	__u64 cgroup_id;
	struct who task;
	struct who parent;
	__u32 uid, gid, login_uid, audit_session;
	__u32 tty_major, tty_minor;
	__u32 flags;
	__u32 unknown;
	/* Lengths of the other parts, in their order. A path is its names, the last first. */
	__u32 cgroup, parent_cgroup, executable, cwd, parent_executable, filename;
	__u32 environment; /* two values, each with its NUL */
	__u32 reserved;
};

/* Where a process is; `cgroups` means something to this kernel only, as long as it runs. */
struct place {
	__u64 cgroups;
	__u32 mount_namespace;
	__u32 pid_namespace;
};

/* A process that belongs to a session; the key is its pid on the host. */
struct mark {
	__u64 session;
	__u64 start;
	struct place place; /* when it, or an ancestor in the session, last ran a program */
	__u64 above_start;  /* that ancestor's; 0 if there is none */
	__u32 above_pid;
	__u32 pid;
	__u32 has_run;
	__u32 reserved;
};

struct session {
	__u64 outer;
	__u32 members; /* processes, and sessions that were opened in it */
	__u32 depth;
};
