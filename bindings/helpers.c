// SPDX-License-Identifier: GPL-2.0
/*
 * Non-trivial C macros and static inlines cannot be called from Rust. Each
 * wrapper here does nothing but call one of them; what the kernel crate already
 * wraps (rust_helper_*) is not wrapped again.
 */

#include "bindings_helper.h"

/* The state of __ratelimit() has no initialiser that Rust could use. */
bool smc_rs_helper_log_allowed(void)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&state);
}

void smc_rs_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

void smc_rs_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}

int smc_rs_helper_sock_error(struct sock *sk)
{
	return sock_error(sk);
}

void smc_rs_helper_sock_graft(struct sock *sk, struct socket *parent)
{
	sock_graft(sk, parent);
}

void smc_rs_helper_sock_orphan(struct sock *sk)
{
	sock_orphan(sk);
}

void smc_rs_helper_sock_set_dead(struct sock *sk)
{
	sock_set_flag(sk, SOCK_DEAD);
}

struct net *smc_rs_helper_sock_net(const struct sock *sk)
{
	return sock_net(sk);
}

/* sock_poll_wait() in the queue that @sk wakes, which is not always that of its struct socket. */
void smc_rs_helper_sk_poll_wait(struct file *file, struct sock *sk, poll_table *p)
{
	poll_wait(file, sk_sleep(sk), p);
}

struct socket_wq *smc_rs_helper_new_queue(void)
{
	struct socket_wq *wq = kzalloc(sizeof(*wq), GFP_KERNEL);

	if (wq)
		init_waitqueue_head(&wq->wait);
	return wq;
}

/* After those who wake @wq now are done. */
void smc_rs_helper_free_queue(struct socket_wq *wq)
{
	kfree_rcu(wq, rcu);
}

struct socket_wq *smc_rs_helper_sk_queue(struct sock *sk)
{
	return rcu_dereference_raw(sk->sk_wq);
}

/* Has @sk wake @wq from now on. */
void smc_rs_helper_sk_set_queue(struct sock *sk, struct socket_wq *wq)
{
	rcu_assign_pointer(sk->sk_wq, wq);
}

void smc_rs_helper_sock_prot_inuse_add(struct net *net, const struct proto *prot, int n)
{
	local_bh_disable();
	sock_prot_inuse_add(net, prot, n);
	local_bh_enable();
}

void smc_rs_helper_inet6_set_pinfo(struct sock *sk, struct ipv6_pinfo *np)
{
	inet_sk(sk)->pinet6 = np;
}

/* Index of the device that the connection's route leaves by; 0 if there is none. */
int smc_rs_helper_clcsk_egress_ifindex(struct sock *sk)
{
	struct dst_entry *dst;
	struct net_device *dev;
	int ifindex = 0;

	rcu_read_lock();
	dst = __sk_dst_get(sk);
	dev = dst ? dst_dev_rcu(dst) : NULL;
	if (dev)
		ifindex = dev->ifindex;
	rcu_read_unlock();
	return ifindex;
}

/*
 * Whether the connection's route leads through a gateway: 1 and its Ethernet address, 0, or -1 if that address, or the
 * route, is not known.
 */
int smc_rs_helper_clcsk_gateway(struct sock *sk, u8 *mac)
{
	struct dst_entry *dst = sk_dst_get(sk);
	struct neighbour *neigh;
	int ret = 0;

	if (!dst)
		return -1;
	if (dst->ops->family == AF_INET && dst_rtable(dst)->rt_uses_gateway) {
		ret = -1;
		neigh = dst_neigh_lookup(dst, &inet_sk(sk)->inet_daddr);
		if (!IS_ERR_OR_NULL(neigh)) {
			if (READ_ONCE(neigh->nud_state) & NUD_VALID && neigh->dev->addr_len == ETH_ALEN) {
				neigh_ha_snapshot((char *)mac, neigh, neigh->dev);
				ret = 1;
			}
			neigh_release(neigh);
		}
	}
	dst_release(dst);
	return ret;
}

/*
 * Index of the device that the VLAN device @ifindex is on, if both are of @net, and the number of the VLAN; 0 if @ifindex
 * is no such device.
 */
int smc_rs_helper_vlan_base(struct net *net, int ifindex, u16 *vlan)
{
	struct net_device *dev, *base;
	int index = 0;

	rcu_read_lock();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (dev && is_vlan_dev(dev)) {
		base = vlan_dev_real_dev(dev);
		if (net_eq(dev_net(base), net)) {
			index = base->ifindex;
			*vlan = vlan_dev_vlan_id(dev);
		}
	}
	rcu_read_unlock();
	return index;
}

void smc_rs_helper_init_work(struct work_struct *work, work_func_t func)
{
	__INIT_WORK(work, func, 0);
}

struct workqueue_struct *smc_rs_helper_alloc_workqueue(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", flags, 0, name);
}

/* Tells of @events, or of anything if 0; @exclusive as for __wake_up(): how many who wait in turn, 0 is all. */
void smc_rs_helper_sk_wake(struct sock *sk, int exclusive, unsigned int events)
{
	struct socket_wq *wq;

	rcu_read_lock();
	wq = rcu_dereference(sk->sk_wq);
	if (skwq_has_sleeper(wq))
		__wake_up(&wq->wait, TASK_INTERRUPTIBLE, exclusive,
			  poll_to_key((__force __poll_t)events));
	rcu_read_unlock();
}

void smc_rs_helper_sk_wake_readable(struct sock *sk)
{
	struct socket_wq *wq;

	rcu_read_lock();
	wq = rcu_dereference(sk->sk_wq);
	if (skwq_has_sleeper(wq))
		wake_up_interruptible_sync_poll(&wq->wait,
						EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND);
	rcu_read_unlock();
}

/*
 * SIGIO for whoever asked for it (O_ASYNC); @band is POLL_IN, POLL_OUT, ... They are listed at the
 * struct socket of their file, whichever queue @sk wakes.
 */
void smc_rs_helper_sk_signal_io(struct sock *sk, int band)
{
	struct socket *sock;

	if (!sock_flag(sk, SOCK_FASYNC))
		return;
	rcu_read_lock();
	sock = READ_ONCE(sk->sk_socket);
	if (sock)
		sock_wake_async(&sock->wq, SOCK_WAKE_IO, band);
	rcu_read_unlock();
}

/* sk_send_sigurg(), whichever queue @sk wakes. */
void smc_rs_helper_sk_signal_urgent(struct sock *sk)
{
	struct socket *sock;

	sk_send_sigurg(sk);
	rcu_read_lock();
	sock = READ_ONCE(sk->sk_socket);
	if (sock && sock_flag(sk, SOCK_FASYNC) && rcu_access_pointer(sk->sk_wq) != &sock->wq)
		sock_wake_async(&sock->wq, SOCK_WAKE_URG, POLL_PRI);
	rcu_read_unlock();
}

/* The kernel crate's barriers differ from version to version. */
void smc_rs_helper_full_barrier(void)
{
	smp_mb();
}

int smc_rs_helper_sock_intr_errno(long timeo)
{
	return sock_intr_errno(timeo);
}

int smc_rs_helper_put_user_int(int value, void __user *to)
{
	return put_user(value, (int __user *)to);
}

int smc_rs_helper_sockptr_get_int(sockptr_t from, int len, int *out)
{
	if (len < (int)sizeof(*out))
		return -EINVAL;
	return copy_from_sockptr(out, from, sizeof(*out)) ? -EFAULT : 0;
}

#define SMC_RS_COPIED_FLAGS ((1UL << SOCK_URGINLINE) | (1UL << SOCK_KEEPOPEN) |	\
			     (1UL << SOCK_LINGER) | (1UL << SOCK_BROADCAST) |	\
			     (1UL << SOCK_TIMESTAMP) | (1UL << SOCK_DBG) |	\
			     (1UL << SOCK_RCVTSTAMP) | (1UL << SOCK_RCVTSTAMPNS) | \
			     (1UL << SOCK_LOCALROUTE) |				\
			     (1UL << SOCK_TIMESTAMPING_RX_SOFTWARE) |		\
			     (1UL << SOCK_RXQ_OVFL) | (1UL << SOCK_WIFI_STATUS) | \
			     (1UL << SOCK_NOFCS) | (1UL << SOCK_FILTER_LOCKED) | \
			     (1UL << SOCK_TSTAMP_NEW) | (1UL << SOCK_ZEROCOPY) | \
			     (1UL << SOCK_RCVMARK) | (1UL << SOCK_RCVPRIORITY) | \
			     (1UL << SOCK_TXTIME))

/* Who has one of these flags has switched the time stamps of packets on, and off at its end. */
#define SMC_RS_TIMESTAMP_FLAGS ((1UL << SOCK_TIMESTAMP) |			\
				(1UL << SOCK_TIMESTAMPING_RX_SOFTWARE))

/*
 * Carries the SOL_SOCKET options that were set on @from over to @to. The fields
 * are bit fields and flags that only C can name. May sleep: incoming packets
 * change flags of a TCP socket, too.
 */
void smc_rs_helper_copy_sock_options(struct sock *from, struct sock *to)
{
	bool stamped, stamps;

	lock_sock(to);
	stamped = to->sk_flags & SMC_RS_TIMESTAMP_FLAGS;
	to->sk_reuse = from->sk_reuse;
	to->sk_reuseport = from->sk_reuseport;
	WRITE_ONCE(to->sk_sndtimeo, READ_ONCE(from->sk_sndtimeo));
	WRITE_ONCE(to->sk_rcvtimeo, READ_ONCE(from->sk_rcvtimeo));
	WRITE_ONCE(to->sk_mark, READ_ONCE(from->sk_mark));
	WRITE_ONCE(to->sk_priority, READ_ONCE(from->sk_priority));
	WRITE_ONCE(to->sk_bound_dev_if, READ_ONCE(from->sk_bound_dev_if));
	WRITE_ONCE(to->sk_lingertime, READ_ONCE(from->sk_lingertime));
	if (READ_ONCE(from->sk_max_pacing_rate) != READ_ONCE(to->sk_max_pacing_rate)) {
		unsigned long rate = READ_ONCE(from->sk_max_pacing_rate);

		if (rate != ~0UL)
			cmpxchg(&to->sk_pacing_status, SK_PACING_NONE, SK_PACING_NEEDED);
		WRITE_ONCE(to->sk_max_pacing_rate, rate);
		WRITE_ONCE(to->sk_pacing_rate, min(READ_ONCE(to->sk_pacing_rate), rate));
	}
	to->sk_clockid = from->sk_clockid;
	to->sk_txtime_deadline_mode = from->sk_txtime_deadline_mode;
	to->sk_txtime_report_errors = from->sk_txtime_report_errors;
#ifdef CONFIG_NET_RX_BUSY_POLL
	WRITE_ONCE(to->sk_ll_usec, READ_ONCE(from->sk_ll_usec));
	WRITE_ONCE(to->sk_prefer_busy_poll, READ_ONCE(from->sk_prefer_busy_poll));
	WRITE_ONCE(to->sk_busy_poll_budget, READ_ONCE(from->sk_busy_poll_budget));
#endif
	if (from->sk_userlocks & SOCK_SNDBUF_LOCK) {
		to->sk_userlocks |= SOCK_SNDBUF_LOCK;
		WRITE_ONCE(to->sk_sndbuf, READ_ONCE(from->sk_sndbuf));
	}
	if (from->sk_userlocks & SOCK_RCVBUF_LOCK) {
		to->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(to->sk_rcvbuf, READ_ONCE(from->sk_rcvbuf));
	}
	to->sk_flags &= ~SMC_RS_COPIED_FLAGS;
	to->sk_flags |= from->sk_flags & SMC_RS_COPIED_FLAGS;
	stamps = to->sk_flags & SMC_RS_TIMESTAMP_FLAGS;
	WRITE_ONCE(to->sk_tsflags, READ_ONCE(from->sk_tsflags));
	if (stamps && !stamped)
		net_enable_timestamp();
	else if (stamped && !stamps)
		net_disable_timestamp();
	if (to->sk_prot->keepalive)
		to->sk_prot->keepalive(to, sock_flag(to, SOCK_KEEPOPEN));
	release_sock(to);
}

void smc_rs_helper_security_sk_clone(const struct sock *sk, struct sock *newsk)
{
	security_sk_clone(sk, newsk);
}

/*
 * @to, which a thread of the kernel has made and nobody else uses yet, gets the cgroup of @from: as by cgroup_sk_clone(), which
 * is not for modules.
 */
void smc_rs_helper_copy_sock_cgroup(struct sock *from, struct sock *to)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct cgroup *of_thread = sock_cgroup_ptr(&to->sk_cgrp_data);
	struct cgroup *cgrp = sock_cgroup_ptr(&from->sk_cgrp_data);

	cgroup_get(cgrp);
	cgroup_bpf_get(cgrp);
	/* With the classes of version 1, as TCP has it. */
	to->sk_cgrp_data = from->sk_cgrp_data;
	cgroup_bpf_put(of_thread);
	cgroup_put(of_thread);
#endif
}

/* The owner holds the lock. Linger time 0, a reset, stays. */
void smc_rs_helper_sk_linger_no_longer(struct sock *sk)
{
	if (sk->sk_lingertime)
		sock_reset_flag(sk, SOCK_LINGER);
}

bool smc_rs_helper_sk_has_policy(const struct sock *sk)
{
#ifdef CONFIG_XFRM
	return rcu_access_pointer(sk->sk_policy[0]) || rcu_access_pointer(sk->sk_policy[1]);
#else
	return false;
#endif
}

bool smc_rs_helper_current_is_exiting(void)
{
	return current->flags & PF_EXITING;
}

/*
 * SO_RCVLOWAT and SO_PEEK_OFF of @from for the TCP socket @to. Not part of the
 * others: TCP would not wake the handshake, whose messages are shorter.
 */
void smc_rs_helper_copy_rcvlowat(struct sock *from, struct socket *to)
{
	int low = READ_ONCE(from->sk_rcvlowat);
	int (*set)(struct sock *sk, int val) = READ_ONCE(to->ops)->set_rcvlowat;

	lock_sock(to->sk);
	if (set)
		set(to->sk, low);
	else
		WRITE_ONCE(to->sk->sk_rcvlowat, low);
	WRITE_ONCE(to->sk->sk_peek_off, READ_ONCE(from->sk_peek_off));
	release_sock(to->sk);
}

/* Has setsockopt(SOL_SOCKET) come to the protocol as well; MSG_ZEROCOPY is known, as with TCP. */
void smc_rs_helper_take_socket_options(struct socket *sock)
{
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
	set_bit(SOCK_SUPPORT_ZC, &sock->flags);
}

void smc_rs_helper_change_flag(struct sock *sk, int flag, bool on)
{
	lock_sock(sk);
	sock_valbool_flag(sk, flag, on);
	release_sock(sk);
}

/* Control messages of recvmsg() that tell of data that came at @when. */
void smc_rs_helper_put_timestamp(struct msghdr *msg, struct sock *sk, s64 when)
{
	struct sk_buff *skb = alloc_skb(0, GFP_KERNEL);

	if (!skb)
		return;
	skb->tstamp = when;
	__sock_recv_timestamp(msg, sk, skb);
	kfree_skb(skb);
}

/* SO_REUSEPORT of @tcp shows at @sk, too. A bit field. May sleep. */
void smc_rs_helper_follow_reuseport(struct sock *sk, struct sock *tcp)
{
	lock_sock(sk);
	sk->sk_reuseport = tcp->sk_reuseport;
	release_sock(sk);
}

/*
 * Hands the user's file over to @clcsock, so that every later system call on it
 * reaches TCP directly. Caller holds the socket lock of @sk.
 */
void smc_rs_helper_hand_over_file(struct sock *sk, struct socket *clcsock)
{
	struct socket *user = sk->sk_socket;

	if (!user || !user->file)
		return;
	clcsock->file = user->file;
	clcsock->wq.fasync_list = user->wq.fasync_list;
	user->wq.fasync_list = NULL;
	if (sock_flag(sk, SOCK_FASYNC))
		sock_set_flag(clcsock->sk, SOCK_FASYNC);
	smp_store_release(&user->file->private_data, clcsock);
}

/* Gives the file back before it goes, or @clcsock does, whoever has that still. */
void smc_rs_helper_take_file_back(struct sock *sk, struct socket *clcsock)
{
	struct socket *user = sk->sk_socket;

	if (!user || !user->file)
		return;
	WRITE_ONCE(user->file->private_data, user);
	/* An fcntl(FASYNC) that had read the private data before it was exchanged. */
	fasync_helper(-1, user->file, 0, &user->wq.fasync_list);
	/* It had no reference. Urgent data that comes in looks at it under the lock. */
	lock_sock(clcsock->sk);
	clcsock->file = NULL;
	release_sock(clcsock->sk);
}

void smc_rs_helper_set_socket_state(struct sock *sk, int state)
{
	read_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_socket)
		sk->sk_socket->state = state;
	read_unlock_bh(&sk->sk_callback_lock);
}

void smc_rs_helper_sk_add_shutdown(struct sock *sk, u8 mask)
{
	write_lock_bh(&sk->sk_callback_lock);
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | mask);
	write_unlock_bh(&sk->sk_callback_lock);
}

wait_queue_head_t *smc_rs_helper_sk_wait_queue(struct sock *sk)
{
	return sk->sk_socket ? sk_sleep(sk) : NULL;
}

int smc_rs_helper_put_user_option(const void *value, int size, void __user *to, void __user *lenp)
{
	int len;

	if (get_user(len, (int __user *)lenp))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	len = min(len, size);
	if (put_user(len, (int __user *)lenp) || copy_to_user(to, value, len))
		return -EFAULT;
	return 0;
}

bool smc_rs_helper_queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	return queue_work(wq, work);
}

void smc_rs_helper_host_name(char *to, size_t size)
{
	strscpy(to, init_uts_ns.name.nodename, size);
}

struct net *smc_rs_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

#include "helpers_rdma.c"
#include "helpers_net.c"
