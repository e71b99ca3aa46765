# SPDX-License-Identifier: GPL-2.0
#
# Generates bindings/generated.rs (types and functions named in
# bindings/bindgen_parameters) and bindings/helpers_generated.rs (the wrappers
# of bindings/helpers.c).

BINDGEN ?= bindgen

ifdef CONFIG_CC_IS_CLANG
smc_bindgen_c_flags = $(c_flags)
else
# bindgen parses with libclang; these are the flags of a GCC-built kernel that
# clang does not know.
smc_bindgen_skip := -mno-fp-ret-in-387 -mpreferred-stack-boundary=% \
	-mskip-rax-setup -mgeneral-regs-only \
	-mindirect-branch=thunk-extern -mindirect-branch-register \
	-mfunction-return=thunk-extern -mrecord-mcount \
	-mindirect-branch-cs-prefix -mstack-protector-guard% \
	-fconserve-stack -falign-jumps=% -falign-loops=% \
	-femit-struct-debug-baseonly -fno-ipa-cp-clone -fno-ipa-sra \
	-fno-partial-inlining -fplugin-arg-% \
	-fno-reorder-blocks -fno-allow-store-data-races \
	-fzero-call-used-regs=% -fno-stack-clash-protection \
	-fno-inline-functions-called-once -fsanitize=bounds-strict \
	-fstrict-flex-arrays=% -fmin-function-alignment=% \
	-fzero-init-padding-bits=% \
	-fdiagnostics-show-context -fdiagnostics-show-context=% \
	--param=% --param asan-% -fno-isolate-erroneous-paths-dereference
smc_bindgen_c_flags = $(filter-out $(smc_bindgen_skip),$(c_flags)) \
	-w --target=x86_64-linux-gnu
endif

smc_bindgen_c_flags_final = $(filter-out $(CC_FLAGS_LTO),$(smc_bindgen_c_flags)) \
	-fno-builtin -D__BINDGEN__ -DMODULE

quiet_cmd_smc_bindgen = BINDGEN $@
      cmd_smc_bindgen = \
	$(BINDGEN) $< $(smc_bindgen_target_flags) --rust-target 1.85 \
		--use-core --with-derive-default --ctypes-prefix ::kernel::ffi \
		--no-debug '.*' \
		--enable-function-attribute-detection \
		-o $@ -- $(smc_bindgen_c_flags_final) $(smc_bindgen_target_extra)

$(obj)/bindings/generated.rs: private smc_bindgen_target_flags = \
	$(shell grep -Ev '^\#|^$$' $(src)/bindings/bindgen_parameters)
$(obj)/bindings/generated.rs: private smc_bindgen_target_extra = ; \
	sed -Ei 's/pub const SMC_RS_CONST_([a-zA-Z0-9_]*)/pub const \1/g' $@
$(obj)/bindings/generated.rs: $(src)/bindings/bindings_helper.h \
		$(src)/bindings/bindgen_parameters FORCE
	$(call if_changed_dep,smc_bindgen)

$(obj)/bindings/helpers_generated.rs: private smc_bindgen_target_flags = \
	--blocklist-type '.*' --allowlist-var '' --allowlist-function 'smc_rs_helper_.*'
$(obj)/bindings/helpers_generated.rs: private smc_bindgen_target_extra = \
	-Wno-missing-prototypes -Wno-missing-declarations ; \
	sed -Ei 's/pub fn smc_rs_helper_([a-zA-Z0-9_]*)/\#[link_name="smc_rs_helper_\1"]\n    pub fn \1/g' $@
$(obj)/bindings/helpers_generated.rs: $(src)/bindings/helpers.c FORCE
	$(call if_changed_dep,smc_bindgen)

targets += bindings/generated.rs bindings/helpers_generated.rs
