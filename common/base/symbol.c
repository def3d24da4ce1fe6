/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of the program itself are looked up in the symbol table of its file, because the
 * dynamic linker knows exported ones only. */
#include "common/base/symbol.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Set by the linker: where the program begins, and where its code ends. */
extern const char __executable_start[], etext[];

bool symbol_in_program(const void *addr)
{
    return (const char *)addr >= __executable_start && (const char *)addr < etext;
}

/* The function that covers `value` in one symbol table; writes "name+0x…". */
static bool table_find(const uint8_t *file, const ElfW(Shdr) * tab, const ElfW(Shdr) * strings,
                       uintptr_t value, char *dst, size_t dst_bytes)
{
    const ElfW(Sym) *syms = (const void *)(file + tab->sh_offset);

    for (size_t i = 0; i < tab->sh_size / sizeof(*syms); i++) {
        const ElfW(Sym) *s = &syms[i];

        if ((s->st_info & 0xf) != STT_FUNC || value < s->st_value ||
            value >= s->st_value + s->st_size || s->st_name >= strings->sh_size)
            continue;
        snprintf(dst, dst_bytes, "%s+0x%" PRIxPTR,
                 (const char *)file + strings->sh_offset + s->st_name, value - s->st_value);
        return true;
    }
    return false;
}

/* The file is our own, made by the linker: only what stripping changes is checked. */
static bool file_find(const uint8_t *file, uintptr_t addr, char *dst, size_t dst_bytes)
{
    const ElfW(Ehdr) *head = (const void *)file;
    const ElfW(Shdr) *sections = (const void *)(file + head->e_shoff);
    uintptr_t base = head->e_type == ET_DYN ? (uintptr_t)__executable_start : 0;

    for (unsigned i = 0; head->e_shoff != 0 && i < head->e_shnum; i++) {
        if (sections[i].sh_type == SHT_SYMTAB && sections[i].sh_link < head->e_shnum)
            return table_find(file, &sections[i], &sections[sections[i].sh_link], addr - base, dst,
                              dst_bytes);
    }
    return false;
}

static bool program_find(uintptr_t addr, char *dst, size_t dst_bytes)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool found = false;
    void *file;

    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size > sizeof(ElfW(Ehdr))) {
        file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            found = file_find(file, addr, dst, dst_bytes);
            (void)munmap(file, (size_t)st.st_size);
        }
    }
    close(fd);
    return found;
}

void symbol_format(const void *addr, char *dst, size_t dst_bytes)
{
    uintptr_t at = (uintptr_t)addr;
    const char *slash;
    Dl_info info;

    if (symbol_in_program(addr) && program_find(at, dst, dst_bytes))
        return;
    if (dladdr(addr, &info) == 0 || info.dli_fname == NULL) {
        snprintf(dst, dst_bytes, "0x%" PRIxPTR, at);
        return;
    }
    slash = strrchr(info.dli_fname, '/');
    if (info.dli_sname != NULL)
        snprintf(dst, dst_bytes, "%s+0x%" PRIxPTR, info.dli_sname, at - (uintptr_t)info.dli_saddr);
    else
        snprintf(dst, dst_bytes, "%s+0x%" PRIxPTR, slash != NULL ? slash + 1 : info.dli_fname,
                 at - (uintptr_t)info.dli_fbase);
}
