// SPDX-License-Identifier: GPL-2.0
/*
 * Lets one kernel function fail, or do nothing, when smc_rs (or another caller) calls it: what a
 * device that refuses, or memory that is not there, looks like. For the selftests only
 * (tools/testing/selftests/src/fault.rs). Stock kernels have no fault injection of their own.
 *
 * modprobe smc_fault function=NAME result=N [PARAMETER=...]; other calls are left alone.
 * modprobe smc_fault late=NAME,... late_by=N makes all calls of these functions wait for N ms before they begin.
 * modprobe smc_fault lose=N loses N bytes a hundred times, and stale=N reads N bytes that it has freed: for the tests of the test.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <rdma/ib_verbs.h>

static char *function;
module_param(function, charp, 0444);
MODULE_PARM_DESC(function, "name of the function, or MODULE:NAME");

static long result;
module_param(result, long, 0444);
MODULE_PARM_DESC(result, "what it returns instead of doing anything: -errno (also as a pointer), or 0");

static int skip;
module_param(skip, int, 0644);
MODULE_PARM_DESC(skip, "calls that go through first");

static int count = -1;
module_param(count, int, 0444);
MODULE_PARM_DESC(count, "calls that fail after that; -1: all");

static char *caller = "[smc_rs";
module_param(caller, charp, 0444);
MODULE_PARM_DESC(caller, "calls from where fail: part of what the kernel calls the place");

static int argument = -1;
module_param(argument, int, 0444);
static unsigned long value;
module_param(value, ulong, 0444);
MODULE_PARM_DESC(value, "only calls in which the argument of that number (from 0) is this fail");

static bool registrations;
module_param(registrations, bool, 0444);
MODULE_PARM_DESC(registrations, "of a driver's post_send: requests to register memory only; none is taken");

static bool posts;
module_param(posts, bool, 0444);
MODULE_PARM_DESC(posts, "it is a driver's post_send or post_recv: no request is taken");

static bool reallocs;
module_param(reallocs, bool, 0444);
MODULE_PARM_DESC(reallocs, "it is a realloc(pointer, size, ...): what frees goes through");

static int hits;
module_param(hits, int, 0644);
MODULE_PARM_DESC(hits, "calls that have failed so far");

static unsigned int lose;
module_param(lose, uint, 0444);
MODULE_PARM_DESC(lose, "bytes to allocate and forget, a hundred times");

static unsigned int stale;
module_param(stale, uint, 0444);
MODULE_PARM_DESC(stale, "bytes to allocate, to free, and then to read");

#define MOST_LATE 4
static char *late[MOST_LATE];
static int late_functions;
module_param_array(late, charp, &late_functions, 0444);
MODULE_PARM_DESC(late, "functions that begin late, whoever calls them");

static unsigned int late_by;
module_param(late_by, uint, 0444);
MODULE_PARM_DESC(late_by, "how late, in ms");

static atomic_t calls = ATOMIC_INIT(0);
module_param_named(calls, calls.counter, int, 0644);
MODULE_PARM_DESC(calls, "calls so far; skip and count begin anew where this is set to 0");

/* Runs in place of the function, on its stack frame. */
static noinline long smc_fault_result(void)
{
	return READ_ONCE(result);
}

static bool is_meant(unsigned long address, struct pt_regs *regs)
{
	char name[KSYM_SYMBOL_LEN];

	if (argument >= 0 && regs_get_kernel_argument(regs, argument) != value)
		return false;
	if (reallocs && !regs_get_kernel_argument(regs, 1))
		return false;
	if (registrations) {
		const struct ib_send_wr *request = (void *)regs_get_kernel_argument(regs, 1);

		if (request->opcode != IB_WR_REG_MR)
			return false;
	}
	sprint_symbol(name, address);
	return strstr(name, caller) != NULL;
}

static int smc_fault_before(struct kprobe *probe, struct pt_regs *regs)
{
	/* At its first instruction a function's return address is on top of the stack. */
	unsigned long from = *(unsigned long *)kernel_stack_pointer(regs);
	int number;

	if (!is_meant(from, regs))
		return 0;
	number = atomic_inc_return(&calls) - 1;
	if (number < READ_ONCE(skip) || (count >= 0 && number - READ_ONCE(skip) >= count))
		return 0;
	/* post_send(qp, list, &rest), and so post_recv: all of the list is left. */
	if (registrations || posts)
		*(unsigned long *)regs_get_kernel_argument(regs, 2) = regs_get_kernel_argument(regs, 1);
	WRITE_ONCE(hits, READ_ONCE(hits) + 1);
	pr_info("call %d of %s fails, from %pS\n", number, function, (void *)from);
	instruction_pointer_set(regs, (unsigned long)smc_fault_result);
	return 1;
}
NOKPROBE_SYMBOL(smc_fault_before);

/* A probe without one may become a jump, and what is said of where to go on would be ignored then (trace/kprobes.rst). */
static void smc_fault_after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe probe = {
	.pre_handler = smc_fault_before,
	.post_handler = smc_fault_after,
};

static int smc_fault_wait(struct kprobe *probe, struct pt_regs *regs)
{
	mdelay(late_by);
	WRITE_ONCE(hits, READ_ONCE(hits) + 1);
	return 0;
}
NOKPROBE_SYMBOL(smc_fault_wait);

static struct kprobe waits[MOST_LATE];

static int __init smc_fault_wait_init(void)
{
	int ret;

	for (int number = 0; number < late_functions; number++) {
		waits[number].symbol_name = late[number];
		waits[number].pre_handler = smc_fault_wait;
		ret = register_kprobe(&waits[number]);
		if (ret) {
			while (number--)
				unregister_kprobe(&waits[number]);
			return ret;
		}
	}
	return 0;
}

static int __init smc_fault_init(void)
{
	/* Many, as a few may be found by what is left of a pointer somewhere. */
	for (int number = 0; lose && number < 100; number++) {
		void *lost = kmalloc(lose, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(lost);
	}
	if (stale) {
		u8 *freed = kmalloc(stale, GFP_KERNEL);

		kfree(freed);
		OPTIMIZER_HIDE_VAR(freed);
		if (freed)
			pr_info("what is there now begins with %#x\n", READ_ONCE(*freed));
	}
	if (late_functions)
		return smc_fault_wait_init();
	if (!function)
		return lose || stale ? 0 : -EINVAL;
	probe.symbol_name = function;
	return register_kprobe(&probe);
}

static void __exit smc_fault_exit(void)
{
	for (int number = 0; number < late_functions; number++)
		unregister_kprobe(&waits[number]);
	if (function && !late_functions)
		unregister_kprobe(&probe);
}

module_init(smc_fault_init);
module_exit(smc_fault_exit);
MODULE_DESCRIPTION("failures on demand for the tests of smc_rs");
MODULE_LICENSE("GPL");
