// SPDX-License-Identifier: GPL-2.0
/*
 * Counts the ends of connections that are established by SMC-R, and the sockets that fall back, by
 * reason: what became of the connections of a program, however short they were. For the runner of
 * programs only (tools/testing/apps/src/probes.rs). The kernel's own probe events do not take
 * functions that were compiled without a call for ftrace, as all Rust functions are.
 *
 * modprobe smc_count established_at=NAME fallback_at=NAME; the counts are read as parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/spinlock.h>

static char *established_at;
module_param(established_at, charp, 0444);
MODULE_PARM_DESC(established_at, "function that is called for each end that is established");

static char *fallback_at;
module_param(fallback_at, charp, 0444);
MODULE_PARM_DESC(fallback_at, "function that is called for each fallback, with the reason as its argument 4 (from 0)");

static ulong established;
module_param(established, ulong, 0444);
MODULE_PARM_DESC(established, "ends that were established; to be read");

/* Room for every reason there is. */
static uint reasons[64];
static uint fallbacks[64];
static int known;
static int rows = ARRAY_SIZE(fallbacks);
module_param_array(reasons, uint, &known, 0444);
MODULE_PARM_DESC(reasons, "reasons of fallbacks; to be read");
module_param_array(fallbacks, uint, &rows, 0444);
MODULE_PARM_DESC(fallbacks, "how often each has occurred; to be read");

static DEFINE_RAW_SPINLOCK(lock);

static int count_established(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	established++;
	raw_spin_unlock_irqrestore(&lock, flags);
	return 0;
}
NOKPROBE_SYMBOL(count_established);

static int count_fallback(struct kprobe *probe, struct pt_regs *regs)
{
	uint reason = regs_get_kernel_argument(regs, 4);
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&lock, flags);
	for (i = 0; i < known && reasons[i] != reason; i++)
		;
	if (i < ARRAY_SIZE(reasons)) {
		reasons[i] = reason;
		fallbacks[i]++;
		known = max(known, i + 1);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	return 0;
}
NOKPROBE_SYMBOL(count_fallback);

static struct kprobe probes[] = {
	{ .pre_handler = count_established },
	{ .pre_handler = count_fallback },
};
static struct kprobe *all[] = { &probes[0], &probes[1] };

static int __init smc_count_init(void)
{
	if (!established_at || !fallback_at)
		return -EINVAL;
	probes[0].symbol_name = established_at;
	probes[1].symbol_name = fallback_at;
	return register_kprobes(all, ARRAY_SIZE(all));
}

static void __exit smc_count_exit(void)
{
	unregister_kprobes(all, ARRAY_SIZE(all));
}

module_init(smc_count_init);
module_exit(smc_count_exit);
MODULE_DESCRIPTION("counts what becomes of the connections of smc_rs, for its tests");
MODULE_LICENSE("GPL");
