/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations of POSIX on a mounted file system, each compared with what a model of it says.
 *   posix_load file PATH OPS SEED   one file: bytes, by calls and through mappings, and its size
 *   posix_load tree DIR OPS SEED    an empty directory: names, links, directories
 * Ends with 1 and what differs at the first difference. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t seed;
static uint64_t op;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}

static void __attribute__((noreturn, format(printf, 1, 2))) differs(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "operation %" PRIu64 ": ", op);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, " (errno: %s)\n", strerror(errno));
    va_end(ap);
    exit(1);
}

#define MUST(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            differs("not so: %s", #what);                                                          \
    } while (0)

/* ---- one file ---- */

#define FILE_MAX (768u << 10)

static uint8_t model[FILE_MAX];
static uint8_t work[FILE_MAX];
static uint32_t size;
static int fd;

static void compare(const uint8_t *got, uint32_t off, uint32_t len, const char *how)
{
    for (uint32_t i = 0; i < len; i++)
        if (got[i] != model[off + i])
            differs("%s: byte %u of %u is %02x, not %02x", how, off + i, size, got[i],
                    model[off + i]);
}

/* Mostly small, sometimes large; often at the edges of pages and of what inodes hold. */
static void range(uint32_t *off, uint32_t *len)
{
    *off = draw(4) ? draw(FILE_MAX) : draw(4) * 4096 + draw(3) - 1;
    *off = *off < FILE_MAX ? *off : 0;
    *len = 1 + (draw(3) ? draw(9000) : draw(200000));
    if (*len > FILE_MAX - *off)
        *len = FILE_MAX - *off;
}

static void file_write(bool mapped)
{
    uint32_t off, len;

    range(&off, &len);
    if (mapped && off >= size)
        return;
    if (mapped && len > size - off)
        len = size - off;
    for (uint32_t i = 0; i < len; i++)
        model[off + i] = (uint8_t)(op * 7 + i);
    if (mapped) {
        uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        MUST(map != MAP_FAILED);
        memcpy(map + off, model + off, len);
        MUST(draw(2) || msync(map, size, MS_SYNC) == 0);
        MUST(munmap(map, size) == 0);
    } else {
        MUST(pwrite(fd, model + off, len, off) == (ssize_t)len);
    }
    size = off + len > size ? off + len : size;
}

static void file_read(bool mapped)
{
    uint32_t off, len, have;

    range(&off, &len);
    have = off >= size ? 0 : size - off < len ? size - off : len;
    if (mapped && have > 0) {
        uint8_t *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

        MUST(map != MAP_FAILED);
        compare(map + off, off, have, "mapping");
        MUST(munmap(map, size) == 0);
    } else {
        MUST(pread(fd, work, len, off) == (ssize_t)have);
        compare(work, off, have, "read");
    }
}

static void file_truncate(void)
{
    uint32_t to = draw(3) ? draw(FILE_MAX) : draw(6000);

    MUST(ftruncate(fd, to) == 0);
    if (to < size)
        memset(model + to, 0, size - to);
    size = to;
}

static void file_reopen(const char *path)
{
    struct stat st;

    MUST(close(fd) == 0);
    fd = open(path, O_RDWR);
    MUST(fd >= 0);
    MUST(fstat(fd, &st) == 0);
    if (st.st_size != (off_t)size)
        differs("the size is %lld, not %u", (long long)st.st_size, size);
}

static void file_step(const char *path)
{
    uint32_t what = draw(100);

    if (what < 30)
        file_write(false);
    else if (what < 45)
        file_write(true);
    else if (what < 70)
        file_read(false);
    else if (what < 80)
        file_read(true);
    else if (what < 90)
        file_truncate();
    else if (what < 95)
        file_reopen(path);
    else
        MUST(fsync(fd) == 0);
}

static void file_load(const char *path, uint64_t ops)
{
    fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    MUST(fd >= 0);
    for (op = 0; op < ops; op++)
        file_step(path);
    file_reopen(path);
    MUST(pread(fd, work, FILE_MAX, 0) == (ssize_t)size);
    compare(work, 0, size, "at the end");
    MUST(close(fd) == 0 && unlink(path) == 0);
}

/* ---- names ---- */

#define NAMES 24u
#define DIRS  3u

/* What a name means: nothing, a file (which one: names with the same id are links), a symbolic
 * link, an empty directory. */
struct name {
    enum kind { NONE, REGULAR, SYMLINK, DIRECTORY } kind;
    uint64_t id;
};
static struct name names[DIRS][NAMES];
static uint64_t next_id = 1;

static const char *path_of(char *to, const char *dir, uint32_t d, uint32_t n)
{
    snprintf(to, 4096, "%s/d%u/name-%u", dir, d, n);
    return to;
}

static uint32_t links(uint64_t id)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < DIRS * NAMES; i++)
        count +=
            names[i / NAMES][i % NAMES].kind == REGULAR && names[i / NAMES][i % NAMES].id == id;
    return count;
}

static void tree_create(const char *path, struct name *n)
{
    uint32_t what = draw(6);
    char text[32];

    if (what < 4) {
        int f = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600 + draw(64));

        MUST((f >= 0) == (n->kind == NONE));
        if (f < 0)
            return;
        *n = (struct name){REGULAR, next_id++};
        snprintf(text, sizeof(text), "%" PRIu64, n->id);
        MUST(write(f, text, strlen(text)) == (ssize_t)strlen(text) && close(f) == 0);
    } else if (what == 4) {
        MUST((mkdir(path, 0755) == 0) == (n->kind == NONE));
        if (n->kind == NONE)
            *n = (struct name){DIRECTORY, 0};
    } else {
        snprintf(text, sizeof(text), "to-%" PRIu64, next_id);
        MUST((symlink(text, path) == 0) == (n->kind == NONE));
        if (n->kind == NONE)
            *n = (struct name){SYMLINK, next_id++};
    }
}

static void tree_remove(const char *path, struct name *n)
{
    int rc = n->kind == DIRECTORY ? rmdir(path) : unlink(path);

    MUST((rc == 0) == (n->kind != NONE));
    n->kind = NONE;
}

static void tree_rename(const char *from, struct name *a, const char *to, struct name *b)
{
    bool same = a == b || (a->kind == REGULAR && b->kind == REGULAR && a->id == b->id);
    bool may =
        a->kind != NONE && (b->kind == NONE || (a->kind == DIRECTORY) == (b->kind == DIRECTORY));

    MUST((rename(from, to) == 0) == may);
    if (may && !same) {
        *b = *a;
        a->kind = NONE;
    }
}

static void tree_link(const char *from, struct name *a, const char *to, struct name *b)
{
    if (a->kind != REGULAR)
        return;
    MUST((link(from, to) == 0) == (b->kind == NONE));
    if (b->kind == NONE)
        *b = *a;
}

static void tree_look(const char *path, const struct name *n)
{
    struct stat st;
    char text[32], got[64] = "";

    MUST((lstat(path, &st) == 0) == (n->kind != NONE));
    if (n->kind == NONE)
        return;
    MUST(S_ISREG(st.st_mode) == (n->kind == REGULAR) &&
         S_ISDIR(st.st_mode) == (n->kind == DIRECTORY));
    if (n->kind == SYMLINK) {
        snprintf(text, sizeof(text), "to-%" PRIu64, n->id);
        MUST(readlink(path, got, sizeof(got) - 1) > 0 && strcmp(got, text) == 0);
    } else if (n->kind == REGULAR) {
        int f = open(path, O_RDONLY);

        snprintf(text, sizeof(text), "%" PRIu64, n->id);
        MUST(f >= 0 && read(f, got, sizeof(got) - 1) >= 0 && close(f) == 0);
        if (strcmp(got, text) != 0)
            differs("%s holds '%s', not '%s'", path, got, text);
        if (st.st_nlink != links(n->id))
            differs("%s has %lu links, not %u", path, (unsigned long)st.st_nlink, links(n->id));
    }
}

static void tree_list(const char *dir, uint32_t d)
{
    bool seen[NAMES] = {false};
    char path[4096];
    struct dirent *e;
    unsigned n;
    DIR *h;

    snprintf(path, sizeof(path), "%s/d%u", dir, d);
    h = opendir(path);
    MUST(h != NULL);
    while ((e = readdir(h)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        if (sscanf(e->d_name, "name-%u", &n) != 1 || n >= NAMES || seen[n])
            differs("'%s' in the listing of %s", e->d_name, path);
        seen[n] = true;
    }
    closedir(h);
    for (n = 0; n < NAMES; n++)
        if (seen[n] != (names[d][n].kind != NONE))
            differs("name-%u is%s in the listing of %s", n, seen[n] ? "" : " not", path);
}

static void tree_step(const char *dir)
{
    uint32_t d = draw(DIRS), n = draw(NAMES), d2 = draw(DIRS), n2 = draw(NAMES), what = draw(100);
    struct name *a = &names[d][n], *b = &names[d2][n2];
    char from[4096], to[4096];

    path_of(from, dir, d, n);
    path_of(to, dir, d2, n2);
    if (what < 30)
        tree_create(from, a);
    else if (what < 45)
        tree_remove(from, a);
    else if (what < 60)
        tree_rename(from, a, to, b);
    else if (what < 70)
        tree_link(from, a, to, b);
    else if (what < 95)
        tree_look(from, a);
    else
        tree_list(dir, d);
}

static void tree_load(const char *dir, uint64_t ops)
{
    char path[4096];

    for (uint32_t d = 0; d < DIRS; d++) {
        snprintf(path, sizeof(path), "%s/d%u", dir, d);
        MUST(mkdir(path, 0755) == 0);
    }
    for (op = 0; op < ops; op++)
        tree_step(dir);
    for (uint32_t d = 0; d < DIRS; d++) {
        tree_list(dir, d);
        for (uint32_t n = 0; n < NAMES; n++)
            if (names[d][n].kind != NONE)
                tree_remove(path_of(path, dir, d, n), &names[d][n]);
        snprintf(path, sizeof(path), "%s/d%u", dir, d);
        MUST(rmdir(path) == 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: posix_load file PATH OPS SEED | tree DIR OPS SEED\n");
        return 2;
    }
    seed = strtoull(argv[4], NULL, 10) * 2 + 1;
    if (strcmp(argv[1], "file") == 0)
        file_load(argv[2], strtoull(argv[3], NULL, 10));
    else
        tree_load(argv[2], strtoull(argv[3], NULL, 10));
    printf("%" PRIu64 " operations as expected\n", op);
    return 0;
}
