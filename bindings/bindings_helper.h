/* SPDX-License-Identifier: GPL-2.0 */
/* Headers whose allow-listed items become bindings/generated.rs. */

#include <linux/cgroup.h>
#include <linux/ftrace.h>
#include <linux/if_vlan.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/inet.h>
#include <linux/inetdevice.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/pci.h>
#include <linux/poll.h>
#include <linux/ptrace.h>
#include <linux/ratelimit.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/sock_diag.h>
#include <linux/socket.h>
#include <linux/splice.h>
#include <linux/sysctl.h>
#include <linux/tcp.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/if_inet6.h>
#include <net/inet_common.h>
#include <net/inet_connection_sock.h>
#include <net/inet_sock.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/netlink.h>
#include <net/netns/generic.h>
#include <net/protocol.h>
#include <net/request_sock.h>
#include <net/route.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>
#include <net/transp_v6.h>
#include <rdma/ib_cache.h>
#include <rdma/ib_verbs.h>

/* Constants that bindgen cannot see through their macros. */
static const gfp_t SMC_RS_CONST_GFP_KERNEL = GFP_KERNEL;
static const gfp_t SMC_RS_CONST_GFP_ATOMIC = GFP_ATOMIC;
static const gfp_t SMC_RS_CONST_GFP_BUFFER = GFP_KERNEL | __GFP_NOWARN | __GFP_COMP |
					     __GFP_NORETRY | __GFP_ZERO | __GFP_NOMEMALLOC;
static const slab_flags_t SMC_RS_CONST_SLAB_HWCACHE_ALIGN = SLAB_HWCACHE_ALIGN;
static const __poll_t SMC_RS_CONST_EPOLLIN = EPOLLIN;
static const __poll_t SMC_RS_CONST_EPOLLOUT = EPOLLOUT;
static const __poll_t SMC_RS_CONST_EPOLLPRI = EPOLLPRI;
static const __poll_t SMC_RS_CONST_EPOLLERR = EPOLLERR;
static const __poll_t SMC_RS_CONST_EPOLLHUP = EPOLLHUP;
static const __poll_t SMC_RS_CONST_EPOLLRDHUP = EPOLLRDHUP;
static const __poll_t SMC_RS_CONST_EPOLLRDNORM = EPOLLRDNORM;
static const __poll_t SMC_RS_CONST_EPOLLWRNORM = EPOLLWRNORM;
static const __poll_t SMC_RS_CONST_EPOLLRDBAND = EPOLLRDBAND;
static const __poll_t SMC_RS_CONST_EPOLLWRBAND = EPOLLWRBAND;
static const __poll_t SMC_RS_CONST_EPOLLMSG = EPOLLMSG;
static const unsigned long SMC_RS_CONST_MAX_SCHEDULE_TIMEOUT = MAX_SCHEDULE_TIMEOUT;
static const int SMC_RS_CONST_NF_IP_PRI_FIRST = NF_IP_PRI_FIRST;
static const unsigned int SMC_RS_CONST_DIAG_DUMP_SIZE = SKB_WITH_OVERHEAD(32768);
static const unsigned int SMC_RS_CONST_WQ_UNBOUND = WQ_UNBOUND;
static const unsigned int SMC_RS_CONST_WQ_MEM_RECLAIM = WQ_MEM_RECLAIM;
