# ZBS: everything is built from here, out of tree, into build/$(MODE).
# `make help` lists the targets. A folder is a library; sources and tests are found by wildcard.

MODE ?= release
V ?= 0
PORTABLE ?= 0
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
Q := $(if $(filter 1,$(V)),,@)
OUT := $(BUILD)/$(MODE)
GEN := $(BUILD)/gen

ifeq ($(MODE),tsan)
CC := clang
else ifeq ($(MODE),fuzz)
CC := clang
else ifeq ($(origin CC),default)
CC := gcc
endif

WARN := -Wall -Wextra -Werror -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes \
	-Wimplicit-fallthrough -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2
CFLAGS_debug := -O1 -g3 -DZBS_DEBUG -DZBS_MUTATE
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fcf-protection=none
# as debug, but many seeds a second: optimised, stacks not painted
CFLAGS_sim := -O2 -g -DZBS_DEBUG -DZBS_FAST -DZBS_MUTATE -Wno-maybe-uninitialized
CFLAGS_asan := -O1 -g -DZBS_DEBUG -DZBS_MUTATE -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -DZBS_DEBUG -fsanitize=thread
CFLAGS_fuzz := -O1 -g -DZBS_DEBUG -DZBS_FUZZER -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
# gcc takes "rc == 0" and "rc < 0" for not exhaustive; the analyser in `make lint` knows better
CFLAGS_release += -Wno-maybe-uninitialized
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
ifeq ($(CFLAGS_$(MODE)),)
$(error unknown MODE=$(MODE): use debug, release, sim, asan, tsan or fuzz)
endif

# Reproducible: no path of the build machine, no date.
CFLAGS_ALL := -std=gnu11 $(WARN) $(CFLAGS_$(MODE)) -fno-omit-frame-pointer -pthread \
	-ffile-prefix-map=$(CURDIR)=. -ffile-prefix-map=$(BUILD)=build -I. -I$(GEN) -D_GNU_SOURCE $(CFLAGS)
LDFLAGS_ALL := -pthread $(LDFLAGS_$(MODE)) $(LDFLAGS)
ifeq ($(shell uname -m),x86_64)
CFLAGS_ALL += -msse4.2
endif
ifeq ($(PORTABLE),1)
CFLAGS_ALL += -DZBS_CO_PORTABLE
endif
LIBS := -lzookeeper_st -lleveldb -lprotobuf-c -lev -luring -lisal -lssl -lcrypto -lblkid -lsystemd -linih -ljansson
LIBS_CLI := -lsmartcols

# ---- sources ----
src = $(sort $(foreach d,$(1),$(wildcard $(d)/*.c)))
obj = $(patsubst %.S,$(OUT)/%.o,$(patsubst %.c,$(OUT)/%.o,$(1)))

PROTOS := $(sort $(wildcard proto/*.proto))
PROTO_C := $(PROTOS:%.proto=$(GEN)/%.pb-c.c)
PROTO_H := $(PROTOS:%.proto=$(GEN)/%.pb-c.h)
PROTO_O := $(PROTOS:%.proto=$(OUT)/%.pb-c.o)

SRC_common := $(call src,common/base common/co common/env common/env/real common/rpc common/coord common/kv common/cluster)
SRC_sim := $(call src,common/env/sim)
SRC_meta := $(filter-out meta/main.c,$(call src,meta))
SRC_chunk := $(filter-out chunk/main.c,$(call src,chunk))
SRC_access := $(filter-out access/main.c,$(call src,access access/vol access/block access/scsi access/stream access/iscsi access/nbd access/nfs))
SRC_cli := $(call src,tools/cli)
SRC_stream := $(call src,tools/stream)
SRC_bench := $(call src,tools/bench)
SRC_fsck := $(call src,tools/fsck)
SRC_testlib := $(call src,tests/lib)

LIB_common := $(OUT)/libzbs-common.a
LIB_sim := $(OUT)/libzbs-sim.a
LIB_meta := $(OUT)/libzbs-meta.a
LIB_chunk := $(OUT)/libzbs-chunk.a
LIB_access := $(OUT)/libzbs-access.a
LIB_stream := $(OUT)/libzbs-stream.a
LIB_testlib := $(OUT)/libzbs-testlib.a

BINS := $(foreach b,$(if $(wildcard meta/main.c),zbs-metad) $(if $(wildcard chunk/main.c),zbs-chunkd) \
	$(if $(wildcard access/main.c),zbs-accessd) $(if $(SRC_cli),zbs-cli) $(if $(SRC_bench),zbs-bench) \
	$(if $(SRC_fsck),zbs-fsck),$(OUT)/$(b))

.PHONY: all
all: $(BINS)

.SUFFIXES:
.SECONDARY:

$(LIB_common): $(call obj,$(SRC_common)) $(PROTO_O)
$(LIB_sim): $(call obj,$(SRC_sim))
$(LIB_meta): $(call obj,$(SRC_meta))
$(LIB_chunk): $(call obj,$(SRC_chunk))
$(LIB_access): $(call obj,$(SRC_access))
$(LIB_stream): $(call obj,$(SRC_stream))
$(LIB_testlib): $(call obj,$(SRC_testlib))
$(OUT)/%.a:
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcsD $@ $^

$(OUT)/zbs-metad: $(OUT)/meta/main.o $(LIB_meta) $(LIB_common)
$(OUT)/zbs-chunkd: $(OUT)/chunk/main.o $(LIB_chunk) $(LIB_common)
$(OUT)/zbs-accessd: $(OUT)/access/main.o $(LIB_access) $(LIB_common)
$(OUT)/zbs-cli: $(call obj,$(SRC_cli)) $(LIB_stream) $(LIB_access) $(LIB_common)
$(OUT)/zbs-bench: $(call obj,$(SRC_bench)) $(LIB_common)
$(OUT)/zbs-fsck: $(call obj,$(SRC_fsck)) $(LIB_chunk) $(LIB_common)
$(OUT)/zbs-%:
	@echo "  LINK $(notdir $@)"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) $(LIBS_CLI)

$(OUT)/%.o: %.c $(PROTO_H)
	@echo "  CC   $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(OUT)/%.pb-c.o: $(GEN)/%.pb-c.c $(PROTO_H)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) -w -MMD -MP -c -o $@ $<
$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h: %.proto $(PROTOS)
	$(Q)mkdir -p $(@D) && protoc-c --c_out=$(GEN) $<

# ---- tests: tests/unit/FOLDER/test_*.c is linked with FOLDER's library, common and the simulator
UNIT_SRC := $(sort $(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c))
UNIT_BIN := $(UNIT_SRC:%.c=$(OUT)/%)
SIM_SRC := $(call src,tests/sim)
SIM_BIN := $(if $(SIM_SRC),$(OUT)/zbs-sim)
CRASH_SRC := $(call src,tests/crash)
CRASH_BIN := $(OUT)/zbs-crash
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:%.c=$(OUT)/%)

define unit_rule
$(OUT)/$(1:%.c=%): $(OUT)/$(1:%.c=%.o) $(2)
endef
lib_of = $(if $(filter tests/unit/meta/%,$(1)),$(LIB_meta)) $(if $(filter tests/unit/chunk/%,$(1)),$(LIB_chunk)) \
	$(if $(filter tests/unit/access/%,$(1)),$(LIB_access)) \
	$(if $(filter tests/unit/access/test_vol_% tests/unit/access/nfs/%,$(1)),$(LIB_chunk) $(LIB_meta) $(LIB_stream)) \
	$(if $(filter tests/unit/tools/%,$(1)),$(LIB_stream))
$(foreach t,$(UNIT_SRC),$(eval $(call unit_rule,$(t),$(LIB_testlib) $(call lib_of,$(t)) $(LIB_sim) $(LIB_common))))
$(UNIT_BIN): %:
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) -lcmocka

$(OUT)/zbs-sim: $(call obj,$(SIM_SRC)) $(LIB_access) $(LIB_chunk) $(LIB_meta) $(LIB_testlib) $(LIB_sim) $(LIB_common)
	@echo "  LINK $(notdir $@)"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(CRASH_BIN): $(call obj,$(CRASH_SRC)) $(LIB_chunk) $(LIB_sim) $(LIB_common)
	@echo "  LINK $(notdir $@)"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(FUZZ_BIN): $(OUT)/tests/fuzz/%: $(OUT)/tests/fuzz/%.o $(LIB_testlib) $(LIB_stream) $(LIB_access) $(LIB_chunk) $(LIB_meta) $(LIB_sim) $(LIB_common)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS_ALL) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $^ $(LIBS)

# programs that integration tests and benchmarks run: one file each
TOOL_SRC := $(sort $(wildcard tests/tools/*.c))
TOOL_BIN := $(TOOL_SRC:%.c=$(OUT)/%)
$(TOOL_BIN): $(OUT)/tests/tools/%: $(OUT)/tests/tools/%.o $(LIB_testlib) $(LIB_access) $(LIB_chunk) $(LIB_meta) $(LIB_common)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) -liscsi

.PHONY: unit-bins fuzz-bins sim-bin crash-bin tool-bins
tool-bins: $(TOOL_BIN)
unit-bins: $(UNIT_BIN)
fuzz-bins: $(FUZZ_BIN)
sim-bin: $(SIM_BIN)
crash-bin: $(CRASH_BIN)

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)

# ---- what people run ----
SEEDS ?= 200
FROM ?= 1
.PHONY: demo test bench bench-engine sim check-aarch64 install-deps install format lint clean help
install-deps:
	$(Q)deploy/install-deps
demo: install-deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)deploy/demo
test: install-deps
	$(Q)tests/run
bench: install-deps
	$(Q)$(MAKE) --no-print-directory all tool-bins
	$(Q)tests/bench/run
bench-engine: install-deps
	$(Q)$(MAKE) --no-print-directory all tool-bins
	$(Q)$(MAKE) --no-print-directory MODE=debug all
	$(Q)tests/bench/engine
sim: install-deps
	$(Q)$(MAKE) --no-print-directory MODE=sim sim-bin
	$(Q)tests/sim/run --seeds $(SEEDS) --from $(FROM)
# Needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static, which nothing else needs.
check-aarch64:
	$(Q)mkdir -p $(OUT)
	$(Q)for o in -O0 -O2; do aarch64-linux-gnu-gcc $$o -static -mbranch-protection=standard -std=gnu11 -Wall -Wextra \
		-D_GNU_SOURCE -I. -o $(OUT)/test_switch_aarch64 tests/cross/test_switch.c && \
		qemu-aarch64-static $(OUT)/test_switch_aarch64 || exit 1; done

# An existing configuration is kept; the samples are in share/zbs as well.
install: all
	$(Q)install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/zbs \
		$(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/zbs
	$(Q)install -m 755 $(OUT)/zbs-metad $(OUT)/zbs-chunkd $(OUT)/zbs-accessd $(OUT)/zbs-fsck $(DESTDIR)$(PREFIX)/sbin/
	$(Q)install -m 755 $(OUT)/zbs-cli $(OUT)/zbs-bench $(DESTDIR)$(PREFIX)/bin/
	$(Q)install -m 644 deploy/conf/*.conf deploy/keepalived/*.conf $(DESTDIR)$(PREFIX)/share/zbs/
	$(Q)for f in deploy/conf/*.conf; do \
		to=$(DESTDIR)/etc/zbs/$$(basename $$f); \
		if [ ! -e $$to ]; then install -m 644 $$f $$to || exit 1; \
		elif ! cmp -s $$f $$to; then echo "  KEEP $$to (this release's sample: $(PREFIX)/share/zbs)"; fi; done
	$(Q)for u in deploy/systemd/*.service; do \
		to=$(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$u); \
		sed 's|@PREFIX@|$(PREFIX)|g' $$u >$$to && chmod 644 $$to || exit 1; done

ALL_C = $(shell git ls-files -co --exclude-standard '*.c' '*.h')
format:
	clang-format -i $(ALL_C)
lint: $(PROTO_H)
	$(Q)tests/lint $(GEN)
clean:
	rm -rf $(BUILD)
help:
	@echo "make [MODE=release|debug|sim|asan|tsan|fuzz] [V=1]   build into build/MODE"
	@echo "     [PORTABLE=1]                                 coroutines without assembly (own BUILD=…)"
	@echo "make demo | test | bench                         see README.md"
	@echo "make bench-engine                                measure the storage engine alone"
	@echo "make sim SEEDS=N FROM=S                          run the cluster simulator"
	@echo "make check-aarch64                               the context switch of that processor, emulated"
	@echo "make install DESTDIR=… PREFIX=…                  install programs, units, configuration"
	@echo "make format | lint | clean"
