// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A plug-in of QEMU's emulator: how many instructions the machine executed at which place, between two marks.
 *
 *   -plugin libplaces.so,out=FILE
 *
 * A mark is an instruction that does nothing, nopl N(%rax), executed by a program in the machine: N is MARK + 1 where
 * counting begins, and MARK + 2 where it ends. At each end FILE gets a line 'span', a line 'user COUNT', and a line
 * 'ADDRESS COUNT' for each block of the kernel's code (of straight instructions; by its first one).
 *
 * One processor only, as under -icount. What of a block does not run because of an exception is counted all the same.
 * Debian has no package with qemu-plugin.h: the little of it that is used is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
/* Since 3 instructions are copied out (QEMU 9.1); since 7 this callback has data of its own instead of the plug-in's number (QEMU 11, the least
 * that it takes). */
#ifndef VERSION
#define VERSION 3
#endif
#if VERSION >= 7
#define TRANSLATED(tb) struct qemu_plugin_tb *tb, void *own
#define OWN(data) , data
#else
#define TRANSLATED(tb) qemu_plugin_id_t id, struct qemu_plugin_tb *tb
#define OWN(data)
#endif
typedef void (*tb_trans_cb)(TRANSLATED(tb));
typedef void (*udata_cb)(unsigned int vcpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_cb cb OWN(void *own));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, enum qemu_plugin_op op, qemu_plugin_u64 entry, uint64_t imm);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, udata_cb cb, enum qemu_plugin_cb_flags flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t length);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int vcpu);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = VERSION;

#define MARK 0x736d6300u	/* "smc" */
#define PLACES (1u << 19)	/* a power of two, above the number of blocks of a kernel that ever ran */
#define USER 0			/* the place of all programs */

static struct qemu_plugin_scoreboard *score;
static uint64_t address[PLACES];	/* of each place; 0: free */
static uint64_t before[PLACES];
static FILE *out;

static size_t place_of(uint64_t vaddr)
{
	size_t at = (vaddr * 0x9e3779b97f4a7c15u) >> 45;
	size_t tries;

	if (!(vaddr >> 63))
		return USER;
	for (tries = 0; tries < PLACES; tries++, at = (at + 1) % PLACES) {
		if (at == USER)
			continue;
		if (!address[at])
			address[at] = vaddr;
		if (address[at] == vaddr)
			return at;
	}
	fprintf(stderr, "places: more than %u blocks of kernel code: raise PLACES\n", PLACES);
	exit(1);
}

static void marked(unsigned int vcpu, void *data)
{
	uint64_t *now = qemu_plugin_scoreboard_find(score, vcpu);
	size_t at;

	if ((uintptr_t)data == 1) {
		memcpy(before, now, sizeof(before));
		return;
	}
	fprintf(out, "span\nuser %" PRIu64 "\n", now[USER] - before[USER]);
	for (at = 1; at < PLACES; at++)
		if (now[at] != before[at])
			fprintf(out, "%" PRIx64 " %" PRIu64 "\n", address[at], now[at] - before[at]);
	fflush(out);
}

static void translated(TRANSLATED(tb))
{
	uint64_t vaddr = qemu_plugin_tb_vaddr(tb);
	size_t count = qemu_plugin_tb_n_insns(tb), i;
	qemu_plugin_u64 entry = { score, place_of(vaddr) * sizeof(uint64_t) };

	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, entry, count);
	if (vaddr >> 63)
		return;
	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		unsigned char code[16];
		uint32_t mark;

		if (qemu_plugin_insn_data(insn, code, sizeof(code)) != 7 || code[0] != 0x0f || code[1] != 0x1f || code[2] != 0x80)
			continue;
		memcpy(&mark, code + 3, sizeof(mark));
		if (mark == MARK + 1 || mark == MARK + 2)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)(mark - MARK));
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "places: -plugin libplaces.so,out=FILE\n");
		return 1;
	}
	out = fopen(argv[0] + 4, "w");
	if (!out) {
		perror(argv[0] + 4);
		return 1;
	}
	score = qemu_plugin_scoreboard_new(PLACES * sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated OWN(NULL));
	return 0;
}
