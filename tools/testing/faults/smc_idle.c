// SPDX-License-Identifier: GPL-2.0
/*
 * How long processors were idle, to the nanosecond, for make demo-erdma: the kernel's own account is made by ticks
 * where the tick goes on. Idle is from the kernel's idle event to the first interrupt after it, which ends the halt;
 * what the interrupt does is work. Read as the parameter idle_ns.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched/clock.h>
#include <linux/tracepoint.h>

struct account {
	u64 since;	/* 0: not idle */
	u64 total;
};
static DEFINE_PER_CPU(struct account, accounts);

static void wakes(void)
{
	struct account *account = this_cpu_ptr(&accounts);

	if (account->since) {
		account->total += local_clock() - account->since;
		account->since = 0;
	}
}

static void on_idle(void *data, unsigned int state, unsigned int cpu)
{
	if (state == (unsigned int)-1)
		wakes();
	else
		__this_cpu_write(accounts.since, local_clock());
}

static void on_interrupt(void *data, int irq, void *action)
{
	wakes();
}

static void on_timer(void *data, int vector)
{
	wakes();
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *point;
} events[] = {
	{ "cpu_idle", on_idle },
	{ "irq_handler_entry", on_interrupt },
	{ "local_timer_entry", on_timer },
};

static void find(struct tracepoint *point, void *data)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(events); i++)
		if (!strcmp(point->name, events[i].name))
			events[i].point = point;
}

static int get_idle_ns(char *buffer, const struct kernel_param *param)
{
	u64 total = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		total += READ_ONCE(per_cpu(accounts, cpu).total);
	return sysfs_emit(buffer, "%llu\n", total);
}

static const struct kernel_param_ops idle_ns_ops = { .get = get_idle_ns };
module_param_cb(idle_ns, &idle_ns_ops, NULL, 0444);
MODULE_PARM_DESC(idle_ns, "nanoseconds that processors were idle; to be read");

static void unregister_first(int count)
{
	while (count--)
		tracepoint_probe_unregister(events[count].point, events[count].probe, NULL);
	tracepoint_synchronize_unregister();
}

static int __init smc_idle_init(void)
{
	int i, rc;

	for_each_kernel_tracepoint(find, NULL);
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		rc = -ENOENT;
		if (events[i].point)
			rc = tracepoint_probe_register(events[i].point, events[i].probe, NULL);
		if (rc) {
			pr_err("no event %s (%d)\n", events[i].name, rc);
			unregister_first(i);
			return rc;
		}
	}
	return 0;
}

static void __exit smc_idle_exit(void)
{
	unregister_first(ARRAY_SIZE(events));
}

module_init(smc_idle_init);
module_exit(smc_idle_exit);
MODULE_DESCRIPTION("counts idle time, for the demo of smc_rs");
MODULE_LICENSE("GPL");
