// SPDX-License-Identifier: GPL-2.0
/*
 * Which programs get an SMC socket when they ask for a TCP socket: by the name of the process, else by its cgroup.
 *
 * update_socket_protocol() is the kernel's hook for that; what it returns is the protocol of the socket that
 * socket(2) makes. The maps are filled by smc-policy, or by anybody else, at any time.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_TYPE_MASK 0xf
#define IPPROTO_TCP 6
#define IPPROTO_SMC 256

#define NAME_SIZE 16 /* of a process, with its NUL */
#define DEPTH 16     /* of cgroups that are looked at */

enum verdict { TCP = 0, SMC = 1 };

/* Names of processes (/proc/PID/comm), filled up with NULs: a verdict each. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, char[NAME_SIZE]);
	__type(value, __u8);
	__uint(max_entries, 1024);
} programs SEC(".maps");

/* Cgroups, by their IDs (inode numbers of their directories): a verdict each, for all that is below, too. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u8);
	__uint(max_entries, 1024);
} cgroups SEC(".maps");

static __u8 verdict(void)
{
	char name[NAME_SIZE] = {};
	__u8 *found, last = TCP;
	int level;

	bpf_get_current_comm(name, sizeof(name));
	found = bpf_map_lookup_elem(&programs, name);
	if (found)
		return *found;
	/* From the root downwards: the innermost one counts. */
	for (level = 0; level < DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break;
		found = bpf_map_lookup_elem(&cgroups, &id);
		if (found)
			last = *found;
	}
	return last;
}

SEC("fmod_ret/update_socket_protocol")
int BPF_PROG(smc_policy, int family, int type, int protocol)
{
	if ((family != AF_INET && family != AF_INET6) || (type & SOCK_TYPE_MASK) != SOCK_STREAM ||
	    (protocol != 0 && protocol != IPPROTO_TCP))
		return protocol;
	return verdict() == SMC ? IPPROTO_SMC : protocol;
}

char LICENSE[] SEC("license") = "GPL";
