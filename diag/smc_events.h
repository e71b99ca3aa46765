/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace events. The first four are those of the kernel's own net/smc, under the same names and with
 * the same fields; the others are about the life of link groups, links and connections.
 */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM smc

#if !defined(_SMC_RS_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _SMC_RS_EVENTS_H

#include <linux/tracepoint.h>

TRACE_EVENT(smc_switch_to_fallback,
	TP_PROTO(const void *sk, const void *clcsk, u64 net_cookie, int fallback_rsn),
	TP_ARGS(sk, clcsk, net_cookie, fallback_rsn),
	TP_STRUCT__entry(
		__field(const void *, sk)
		__field(const void *, clcsk)
		__field(u64, net_cookie)
		__field(int, fallback_rsn)
	),
	TP_fast_assign(
		__entry->sk = sk;
		__entry->clcsk = clcsk;
		__entry->net_cookie = net_cookie;
		__entry->fallback_rsn = fallback_rsn;
	),
	TP_printk("sk=%p clcsk=%p net=%llu fallback_rsn=%d",
		  __entry->sk, __entry->clcsk, __entry->net_cookie, __entry->fallback_rsn)
);

DECLARE_EVENT_CLASS(smc_msg_event,
	TP_PROTO(const void *smc, u64 net_cookie, size_t len, const char *dev),
	TP_ARGS(smc, net_cookie, len, dev),
	TP_STRUCT__entry(
		__field(const void *, smc)
		__field(u64, net_cookie)
		__field(size_t, len)
		__string(name, dev)
	),
	TP_fast_assign(
		__entry->smc = smc;
		__entry->net_cookie = net_cookie;
		__entry->len = len;
		__assign_str(name);
	),
	TP_printk("smc=%p net=%llu len=%zu dev=%s",
		  __entry->smc, __entry->net_cookie, __entry->len, __get_str(name))
);

DEFINE_EVENT(smc_msg_event, smc_tx_sendmsg,
	TP_PROTO(const void *smc, u64 net_cookie, size_t len, const char *dev),
	TP_ARGS(smc, net_cookie, len, dev)
);

DEFINE_EVENT(smc_msg_event, smc_rx_recvmsg,
	TP_PROTO(const void *smc, u64 net_cookie, size_t len, const char *dev),
	TP_ARGS(smc, net_cookie, len, dev)
);

TRACE_EVENT(smcr_link_down,
	TP_PROTO(const void *lnk, const void *lgr, u64 net_cookie, int state, const char *dev,
		 const void *location),
	TP_ARGS(lnk, lgr, net_cookie, state, dev, location),
	TP_STRUCT__entry(
		__field(const void *, lnk)
		__field(const void *, lgr)
		__field(u64, net_cookie)
		__field(int, state)
		__string(name, dev)
		__field(const void *, location)
	),
	TP_fast_assign(
		__entry->lnk = lnk;
		__entry->lgr = lgr;
		__entry->net_cookie = net_cookie;
		__entry->state = state;
		__assign_str(name);
		__entry->location = location;
	),
	TP_printk("lnk=%p lgr=%p net=%llu state=%d dev=%s location=%pS",
		  __entry->lnk, __entry->lgr, __entry->net_cookie, __entry->state,
		  __get_str(name), __entry->location)
);

DECLARE_EVENT_CLASS(smc_rs_group_event,
	TP_PROTO(u32 lgr, u64 net_cookie, bool server, const char *dev, u32 reason),
	TP_ARGS(lgr, net_cookie, server, dev, reason),
	TP_STRUCT__entry(
		__field(u32, lgr)
		__field(u64, net_cookie)
		__field(bool, server)
		__string(name, dev)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->lgr = lgr;
		__entry->net_cookie = net_cookie;
		__entry->server = server;
		__assign_str(name);
		__entry->reason = reason;
	),
	TP_printk("lgr=%u net=%llu server=%d dev=%s reason=0x%x",
		  __entry->lgr, __entry->net_cookie, __entry->server, __get_str(name),
		  __entry->reason)
);

DEFINE_EVENT(smc_rs_group_event, smc_rs_lgr_begin,
	TP_PROTO(u32 lgr, u64 net_cookie, bool server, const char *dev, u32 reason),
	TP_ARGS(lgr, net_cookie, server, dev, reason)
);

DEFINE_EVENT(smc_rs_group_event, smc_rs_link_up,
	TP_PROTO(u32 lgr, u64 net_cookie, bool server, const char *dev, u32 reason),
	TP_ARGS(lgr, net_cookie, server, dev, reason)
);

DEFINE_EVENT(smc_rs_group_event, smc_rs_lgr_end,
	TP_PROTO(u32 lgr, u64 net_cookie, bool server, const char *dev, u32 reason),
	TP_ARGS(lgr, net_cookie, server, dev, reason)
);

DECLARE_EVENT_CLASS(smc_rs_conn_event,
	TP_PROTO(u32 token, u32 lgr, u64 net_cookie, bool server),
	TP_ARGS(token, lgr, net_cookie, server),
	TP_STRUCT__entry(
		__field(u32, token)
		__field(u32, lgr)
		__field(u64, net_cookie)
		__field(bool, server)
	),
	TP_fast_assign(
		__entry->token = token;
		__entry->lgr = lgr;
		__entry->net_cookie = net_cookie;
		__entry->server = server;
	),
	TP_printk("token=0x%x lgr=%u net=%llu server=%d",
		  __entry->token, __entry->lgr, __entry->net_cookie, __entry->server)
);

DEFINE_EVENT(smc_rs_conn_event, smc_rs_conn_made,
	TP_PROTO(u32 token, u32 lgr, u64 net_cookie, bool server),
	TP_ARGS(token, lgr, net_cookie, server)
);

DEFINE_EVENT(smc_rs_conn_event, smc_rs_conn_over,
	TP_PROTO(u32 token, u32 lgr, u64 net_cookie, bool server),
	TP_ARGS(token, lgr, net_cookie, server)
);

#endif /* _SMC_RS_EVENTS_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE smc_events
#include <trace/define_trace.h>
