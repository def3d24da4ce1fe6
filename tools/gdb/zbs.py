# SPDX-License-Identifier: Apache-2.0
"""gdb commands for coroutines: of a live process, or of a core.

  (gdb) source tools/gdb/zbs.py
  (gdb) zbs coroutines [-b] [PATTERN]     list them, -b with stacks; PATTERN of their name or loop
  (gdb) zbs backtrace ADDRESS             the stack of one

A suspended coroutine's registers were saved by its last switch (common/co/switch.h). Its stack is
followed by frame pointers, which all of our code keeps: so nothing in the process is changed and a
core will do. The running ones are on their threads: `thread apply all backtrace`."""
import fnmatch

import gdb

NEVER = 2**63 - 1
FRAMES_MAX = 64
MAIL_MASK, MAIL_WAIT, MAIL_CO = 3, 1, 2  # common/co/loop.c
BY_CANCEL, BY_DEADLINE = 1, 2  # common/co/co_impl.h


def pointer(name):
    return gdb.lookup_type(name).pointer()


def member_offset(type_name, field):
    return next(f.bitpos // 8 for f in gdb.lookup_type(type_name).fields() if f.name == field)


def elements(head, type_name, field):
    """What the list is made of (common/base/list.h)."""
    offset, end, at = member_offset(type_name, field), int(head.address), head["next"]
    while int(at) != end:
        yield gdb.Value(int(at) - offset).cast(pointer(type_name)).dereference()
        at = at["next"]


def atomic(value):
    """Reads _Atomic members, whose type gdb does not convert itself."""
    return int(value.cast(value.type.unqualified()))


def read_word(address):
    return int(gdb.Value(address).cast(gdb.lookup_type("unsigned long").pointer()).dereference())


# ---- coroutines and what they do ----

def loops():
    registry = gdb.lookup_static_symbol("loop_registry")
    if registry is None:
        raise gdb.GdbError("no ZBS program with debug information is loaded")
    return elements(registry.value()["loops"], "struct co_loop", "registered")


def mailed(loop):
    """Coroutines on their way to a loop, and waits whose end is on its way."""
    coroutines, waits, letter = [], set(), atomic(loop["mail"])
    while letter:
        node = letter & ~MAIL_MASK
        if letter & MAIL_MASK == MAIL_CO:
            at = node - member_offset("struct co", "mail")
            coroutines.append(gdb.Value(at).cast(pointer("struct co")).dereference())
        elif letter & MAIL_MASK == MAIL_WAIT:
            waits.add(node - member_offset("struct co_wait", "link"))
        letter = int(gdb.Value(node).cast(pointer("struct list"))["next"])
    return coroutines, waits


def ready(loop):
    found, co = set(), loop["ready_first"]
    while int(co):
        found.add(int(co))
        co = co["next"]
    return found


class Coroutine:
    def __init__(self, co, loop, state):
        self.co, self.loop, self.state = co, loop, state
        self.address = int(co.address)
        self.name = co["ctx"]["co_name"].string()
        self.loop_name = loop["name"].string()

    def deadline(self):
        at = int(self.co["deadline"])
        return "-" if at == NEVER else f"{(at - int(self.loop['now'])) / 1e9:+.3f} s"

    def marks(self):
        marks = []
        if atomic(self.co["canceled"]):
            marks.append("cancelled")
        if int(self.co["shields"]):
            marks.append("shielded")
        if int(self.co["locks"]):
            marks.append(f"holds {int(self.co['locks'])} mutex(es)")
        if self.co["home"] != self.loop.address:
            marks.append(f"home {self.co['home']['name'].string()}")
        return ", ".join(marks)

    def line(self):
        return (f"{self.address:#x}  {self.name:20} {self.loop_name:12} {self.state:24} {self.deadline():>12}"
                f"  {self.marks()}").rstrip()


def wait_state(co, waits):
    if int(co["wait"]) in waits:
        return "waiting, about to wake"
    by = int(co["wait_by"])
    ends = [word for bit, word in ((BY_CANCEL, "cancel"), (BY_DEADLINE, "deadline")) if by & bit]
    return "waiting" + (" (" + ", ".join(ends) + ")" if ends else " uninterruptibly")


def coroutines():
    for loop in loops():
        moving, waits = mailed(loop)
        queue = ready(loop)
        for co in elements(loop["stacks"], "struct co", "all"):
            if not co["live"]:
                continue
            if int(co["wait"]):
                state = wait_state(co, waits)
            elif int(co.address) in queue:
                state = "ready"
            else:
                state = "running"
            yield Coroutine(co, loop, state)
        for co in moving:
            yield Coroutine(co, loop, "arriving")


# ---- stacks ----

def saved_registers(co):
    """(instruction, frame pointer) where it was switched out; see the layouts in switch.h."""
    sw = co["sw"]
    if "uc" not in [f.name for f in sw.type.fields()]:
        return int(sw["ip"]), int(sw["fp"])
    context = sw["uc"]["uc_mcontext"]
    if "gregs" in [f.name for f in context.type.fields()]:
        return int(context["gregs"][16]), int(context["gregs"][10])
    return int(context["pc"]), int(context["regs"][29])


def where(pc, is_return):
    """function () at file:line, of the function that was compiled and not of one inlined into it."""
    look = pc - 1 if is_return else pc
    frame, block = None, gdb.block_for_pc(look)
    while block is not None and not (block.is_static or block.is_global):
        frame = block.function or frame
        block = block.superblock
    sal = gdb.find_pc_line(look)
    name = frame.name if frame is not None else "??"
    return f"{name} ()" + (f" at {sal.symtab.filename}:{sal.line}" if sal.symtab is not None else "")


def frames(co):
    pc, fp = saved_registers(co)
    end = int(co.address)  # the control block lies at the top of its stack
    bottom = int(co["map"])
    yield where(pc, False)
    for _ in range(FRAMES_MAX):
        if not bottom <= fp <= end - 16:
            return
        pc, caller = read_word(fp + 8), read_word(fp)
        if pc == 0:
            return
        yield where(pc, True)
        if caller <= fp:
            return
        fp = caller


def print_stack(c):
    if c.state == "running":
        print("    on a thread now: thread apply all backtrace")
        return
    for number, text in enumerate(frames(c.co)):
        print(f"    #{number:<2} {text}")


# ---- commands ----

class Zbs(gdb.Command):
    """Commands for ZBS programs."""

    def __init__(self):
        super().__init__("zbs", gdb.COMMAND_DATA, prefix=True)


class ZbsCoroutines(gdb.Command):
    """List coroutines: address, name, loop, state, time to the deadline, marks.

    zbs coroutines [-b] [PATTERN]
    -b shows the stacks of those that are suspended. PATTERN is matched with names and loops."""

    def __init__(self):
        super().__init__("zbs coroutines", gdb.COMMAND_DATA)

    def invoke(self, arg, from_tty):
        words = gdb.string_to_argv(arg)
        stacks = "-b" in words
        patterns = [w for w in words if w != "-b"]
        count = 0
        for c in coroutines():
            if patterns and not any(fnmatch.fnmatch(n, p) for n in (c.name, c.loop_name) for p in patterns):
                continue
            print(c.line())
            if stacks:
                print_stack(c)
            count += 1
        print(f"{count} coroutine(s)")


class ZbsBacktrace(gdb.Command):
    """Show the stack of the suspended coroutine at ADDRESS.

    zbs backtrace ADDRESS"""

    def __init__(self):
        super().__init__("zbs backtrace", gdb.COMMAND_STACK)

    def invoke(self, arg, from_tty):
        address = int(gdb.parse_and_eval(arg))
        for c in coroutines():
            if c.address == address:
                print(c.line())
                print_stack(c)
                return
        raise gdb.GdbError(f"no live coroutine at {address:#x}: see 'zbs coroutines'")


Zbs()
ZbsCoroutines()
ZbsBacktrace()
