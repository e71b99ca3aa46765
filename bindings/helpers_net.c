// SPDX-License-Identifier: GPL-2.0
/* Wrappers for network namespaces, packets and TCP requests; included by helpers.c. */

struct net *smc_rs_helper_get_net(struct net *net)
{
	return get_net(net);
}

struct net *smc_rs_helper_maybe_get_net(struct net *net)
{
	return maybe_get_net(net);
}

void smc_rs_helper_put_net(struct net *net)
{
	put_net(net);
}

/* The namespace with this cookie, with an active reference for the caller. */
struct net *smc_rs_helper_net_by_cookie(u64 cookie)
{
	struct net *net, *found = NULL;

	rcu_read_lock();
	for_each_net_rcu(net) {
		if (net->net_cookie == cookie) {
			found = maybe_get_net(net);
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

unsigned int smc_rs_helper_net_inum(const struct net *net)
{
	return net->ns.inum;
}

void *smc_rs_helper_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

int smc_rs_helper_skb_cow_head(struct sk_buff *skb, unsigned int headroom)
{
	return skb_cow_head(skb, headroom);
}

unsigned int smc_rs_helper_skb_headlen(const struct sk_buff *skb)
{
	return skb_headlen(skb);
}

int smc_rs_helper_skb_network_offset(const struct sk_buff *skb)
{
	return skb_network_offset(skb);
}

int smc_rs_helper_skb_transport_offset(const struct sk_buff *skb)
{
	return skb_transport_offset(skb);
}

void smc_rs_helper_skb_set_network_header(struct sk_buff *skb, int offset)
{
	skb_set_network_header(skb, offset);
}

void smc_rs_helper_skb_set_transport_header(struct sk_buff *skb, int offset)
{
	skb_set_transport_header(skb, offset);
}

int smc_rs_helper_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}

int smc_rs_helper_skb_is_partial(const struct sk_buff *skb)
{
	return skb->ip_summed == CHECKSUM_PARTIAL;
}

/* The caller has room for a list head at `offset` in the object; its type's name depends on the kernel. */
void smc_rs_helper_kfree_rcu_at(void *object, unsigned long offset)
{
	kvfree_call_rcu(object + offset, object);
}

void smc_rs_helper_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

unsigned long smc_rs_helper_msecs_to_jiffies(unsigned int msecs)
{
	return msecs_to_jiffies(msecs);
}

/* NULL for a task that is about to be gone. */
struct net *smc_rs_helper_current_net(void)
{
	return current->nsproxy ? current->nsproxy->net_ns : NULL;
}

void smc_rs_helper_skb_csum_start_back(struct sk_buff *skb, unsigned int bytes)
{
	if (skb->ip_summed == CHECKSUM_PARTIAL)
		skb->csum_start -= bytes;
}

struct sock *smc_rs_helper_reqsk_listener(struct request_sock *req)
{
	return req->rsk_listener;
}

bool smc_rs_helper_workqueue_congested(struct workqueue_struct *wq)
{
	return workqueue_congested(WORK_CPU_UNBOUND, wq);
}

bool smc_rs_helper_queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work,
				      unsigned long delay)
{
	return queue_delayed_work(wq, work, delay);
}

/* What the user has fixed of @sk (SOCK_*_LOCK); a bit field in some kernels. */
u8 smc_rs_helper_sk_userlocks(const struct sock *sk)
{
	return sk->sk_userlocks;
}

void smc_rs_helper_set_sk_userlocks(struct sock *sk, u8 locks)
{
	sk->sk_userlocks = locks;
}

/* Gives the port of @sk, which has no connection, back. The owner holds the lock. */
void smc_rs_helper_sk_put_port(struct sock *sk)
{
	if (sk->sk_state == TCP_CLOSE && inet_csk(sk)->icsk_bind_hash)
		sk->sk_prot->put_port(sk);
}

/* False if the last reference is gone already. */
bool smc_rs_helper_sock_hold_if_alive(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

u64 smc_rs_helper_sock_i_ino(struct sock *sk)
{
	return sock_i_ino(sk);
}

/* The owner of @sk, as the sender of the netlink message @asker knows him. */
u32 smc_rs_helper_sk_uid_for(struct sock *sk, struct sk_buff *asker)
{
	return from_kuid_munged(sk_user_ns(NETLINK_CB(asker).sk), sk_uid(sk));
}

struct nlmsghdr *smc_rs_helper_nlmsg_put_answer(struct sk_buff *skb, struct netlink_callback *cb,
						int type, int payload, int flags)
{
	return nlmsg_put_answer(skb, cb, type, payload, flags);
}

void smc_rs_helper_nlmsg_end(struct sk_buff *skb, struct nlmsghdr *nlh)
{
	nlmsg_end(skb, nlh);
}

void smc_rs_helper_nlmsg_cancel(struct sk_buff *skb, struct nlmsghdr *nlh)
{
	nlmsg_cancel(skb, nlh);
}

struct net *smc_rs_helper_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

/* Answers a command with messages that are complete, headers and all. */
int smc_rs_helper_genl_answer(struct genl_info *info, const void *messages, size_t len)
{
	struct sk_buff *skb = nlmsg_new(len, GFP_KERNEL);

	if (!skb)
		return -ENOMEM;
	skb_put_data(skb, messages, len);
	return genlmsg_reply(skb, info);
}

/* Rust knows no address spaces of processors' own memory, and GCC no cast between these and others but by a number. */
static u64 __percpu *counters_at(void *base)
{
	return (u64 __percpu __force *)(unsigned long)base;
}

/* An array of counters for each processor. */
void *smc_rs_helper_percpu_counters_alloc(unsigned int count)
{
	return (void *)(__force unsigned long)__alloc_percpu(count * sizeof(u64), sizeof(u64));
}

void smc_rs_helper_percpu_counters_free(void *base)
{
	free_percpu(counters_at(base));
}

void smc_rs_helper_percpu_counters_add(void *base, unsigned int number, u64 value)
{
	this_cpu_add(counters_at(base)[number], value);
}

/* One more of two of them, and @value of a third one. */
void smc_rs_helper_percpu_counters_add_call(void *base, unsigned int one, unsigned int other, unsigned int number,
					    u64 value)
{
	u64 __percpu *counters = counters_at(base);

	this_cpu_inc(counters[one]);
	this_cpu_inc(counters[other]);
	this_cpu_add(counters[number], value);
}

u64 smc_rs_helper_percpu_counters_sum(void *base, unsigned int number)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(counters_at(base), cpu)[number]);
	return sum;
}
