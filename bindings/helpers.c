// SPDX-License-Identifier: GPL-2.0
/*
 * Non-trivial C macros and static inlines cannot be called from Rust. Each
 * wrapper here does nothing but call one of them; what the kernel crate already
 * wraps (rust_helper_*) is not wrapped again.
 */

#include "bindings_helper.h"

void smc_rs_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

void smc_rs_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}
