/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The text of a record.
 *
 * Functions that the verifier checks once, for any arguments, instead of anew at each call: on
 * older kernels those take numbers only. They append at an offset of this CPU's scratch and return
 * the offset after it, or one of these with it.
 */
#pragma once

#include "maps.h"
#include "place.h"

#define STEPS_MAX 128	    /* names and mount points of a path */
#define CGROUPS_MAX 32	    /* levels */
#define VARIABLES_MAX 2048  /* looked at in an environment */

#define CUT (1ULL << 32)     /* there is more than was appended */
#define BARE (1ULL << 33)    /* the path is a name that no file system has */
#define OUTSIDE (1ULL << 34) /* the cgroup is not below the agent's root */

static __always_inline struct scratch *this_scratch(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&scratch, &cpu);
}

/* Append a kernel string; return its length with the NUL, 0 if it did not fit. */
static __always_inline __u64 append(struct scratch *out, __u64 offset, __u64 limit, __u64 size,
				    __u64 text)
{
	__u64 length;

	/* Else the compiler proves this from a copy that the verifier knows nothing of. */
	asm volatile("" : "+r"(offset));
	if (offset >= limit || offset >= FILENAME_LIMIT)
		return 0;
	length = bpf_probe_read_kernel_str(&out->data[offset], size, (void *)text);
	/* An error is a huge number here. */
	return length <= size ? length : 0;
}

/* Append a cgroup's names up to the agent's root. */
__noinline __u64 cgroup_names(__u64 cgroup, __u64 offset, __u64 limit)
{
	struct kernfs_node *node = (void *)cgroup, *parent;
	struct scratch *out = this_scratch();

	if (!out)
		return offset | CUT;
	for (int level = 0; level < CGROUPS_MAX; level++) {
		__u64 length;

		if (config.root_cgroup && BPF_CORE_READ(node, id) == config.root_cgroup)
			return offset;
		parent = above(node);
		if (!parent)
			return config.root_cgroup ? offset | OUTSIDE : offset;
		length = append(out, offset, limit, NAME, (__u64)BPF_CORE_READ(node, name));
		if (!length)
			break;
		offset += length;
		node = parent;
	}
	/* Too deep to tell whose it is: rather too much than nothing. */
	return offset | CUT;
}

/* Append a path's names up to a process's root, or to what the mounts end at. */
__noinline __u64 path_names(__u64 of, __u64 filesystem, __u64 offset, __u64 limit)
{
	struct path *path = (void *)of;
	struct fs_struct *fs = (void *)filesystem;
	struct dentry *entry = BPF_CORE_READ(path, dentry), *top = BPF_CORE_READ(fs, root.dentry);
	struct vfsmount *volume = BPF_CORE_READ(path, mnt), *last = BPF_CORE_READ(fs, root.mnt);
	__u32 inside = bpf_core_field_offset(struct mount, mnt);
	struct scratch *out = this_scratch();

	if (!out)
		return offset | CUT;
	for (int step = 0; step < STEPS_MAX; step++) {
		struct dentry *parent;
		__u64 length;

		if (entry == top && volume == last)
			return offset;
		if (entry == BPF_CORE_READ(volume, mnt_root)) {
			struct mount *mount = (void *)volume - inside;
			struct mount *below = BPF_CORE_READ(mount, mnt_parent);

			if (mount == below)
				return offset;
			entry = BPF_CORE_READ(mount, mnt_mountpoint);
			volume = (void *)below + inside;
			continue;
		}
		parent = BPF_CORE_READ(entry, d_parent);
		length = append(out, offset, limit, NAME, (__u64)BPF_CORE_READ(entry, d_name.name));
		if (!length)
			break;
		offset += length;
		if (parent == entry)
			return offset | BARE;
		entry = parent;
	}
	return offset | CUT;
}

#define KUBERNETES "KUBERNETES_EXEC_AUDIT_ID="
#define PROFILES "SPO_EXEC_REQUEST_UID="

/* The bits in which a part of a text and of a name differ. */
#define DIFFERENCE(type, text, name, at)                                                            \
	({                                                                                         \
		type wanted;                                                                       \
		__builtin_memcpy(&wanted, (name) + (at), sizeof(wanted));                          \
		*(type *)((text) + (at)) ^ wanted;                                                 \
	})

/* `value` if there is no difference, else `other`; without a branch, of which the verifier follows
 * 8,192 in a row and no more.
 */
static __always_inline __u64 pick(__u64 difference, __u64 value, __u64 other)
{
	__u64 sign = difference | -difference, mask;

	asm volatile("" : "+r"(sign));
	mask = -(sign >> 63);
	asm volatile("" : "+r"(mask));
	return (other & mask) | (value & ~mask);
}

/* Append the values of the two variables that carry an audit id, each with its NUL, or a lone NUL. */
__noinline __u64 environment_ids(__u64 at, __u64 end, __u64 offset)
{
	struct scratch *out = this_scratch();
	__u64 found[2] = {}, status = CUT;
	__u8 *text;

	asm volatile("" : "+r"(offset));
	if (!out || offset > IDS_LIMIT)
		return offset | CUT;
	text = &out->data[ARGV_LIMIT]; /* free until argv is read */
	for (int variable = 0; variable < VARIABLES_MAX; variable++) {
		__u64 length;

		if (at >= end) {
			status = 0;
			break;
		}
		length = bpf_probe_read_user_str(text, ARGV_MAX, (void *)at);
		if (length - 1 >= ARGV_MAX - 1)
			break;
		found[0] = pick(DIFFERENCE(__u64, text, KUBERNETES, 0) |
					DIFFERENCE(__u64, text, KUBERNETES, 8) |
					DIFFERENCE(__u64, text, KUBERNETES, 16) |
					DIFFERENCE(__u8, text, KUBERNETES, 24),
				at + sizeof(KUBERNETES) - 1, found[0]);
		found[1] = pick(DIFFERENCE(__u64, text, PROFILES, 0) |
					DIFFERENCE(__u64, text, PROFILES, 8) |
					DIFFERENCE(__u32, text, PROFILES, 16) |
					DIFFERENCE(__u8, text, PROFILES, 20),
				at + sizeof(PROFILES) - 1, found[1]);
		at += length;
	}
	for (int id = 0; id < 2; id++) {
		__u64 length;

		asm volatile("" : "+r"(offset));
		if (offset > IDS_LIMIT + VALUE_MAX)
			break;
		length = bpf_probe_read_user_str(&out->data[offset], VALUE_MAX, (void *)found[id]);
		if (length - 1 >= VALUE_MAX) {
			out->data[offset] = 0;
			length = 1;
		}
		offset += length;
	}
	return offset | status;
}

/* Append the arguments: all, or of too many the head and the tail. */
__noinline __u64 arguments(__u64 start, __u64 end, __u64 offset)
{
	struct scratch *out = this_scratch();
	__u64 size = end > start ? end - start : 0;
	long failed;

	asm volatile("" : "+r"(offset));
	if (!out || offset > ARGV_LIMIT)
		return offset | CUT;
	if (size > ARGV_MAX) {
		failed = bpf_probe_read_user(&out->data[offset], ARGV_MAX / 2, (void *)start);
		failed |= bpf_probe_read_user(&out->data[offset + ARGV_MAX / 2], ARGV_MAX / 2,
					      (void *)(end - ARGV_MAX / 2));
		size = ARGV_MAX;
	} else {
		asm volatile("" : "+r"(size));
		if (size > ARGV_MAX)
			return offset | CUT;
		failed = bpf_probe_read_user(&out->data[offset], size, (void *)start);
	}
	return failed ? offset | CUT : offset + size;
}
