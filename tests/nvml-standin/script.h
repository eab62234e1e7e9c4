/* The script of a stand-in: read from $NVML_STANDIN, again whenever it changes.
 *
 * One `key value` a line. Lines before the first `gpu` belong to the whole; `gpu` begins a GPU,
 * which has an A40's values until its lines say otherwise. `unset KEY` takes a value away: the
 * functions that need it answer NOT_SUPPORTED. README.md lists the keys.
 */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_GPUS 8
#define MAX_KEYS 160
#define TEXT 1200

typedef struct { char key[72]; char value[TEXT]; } Pair;
typedef struct { Pair pairs[MAX_KEYS]; int count; } Table;

static Table whole, gpus[MAX_GPUS];
static int gpu_count;
static struct timespec read_at;
static off_t read_size;
static ino_t read_inode;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *A40 =
    "name NVIDIA A40\nserial 1320621000001\nvbios 94.02.5C.00.03\nminor 0\ncc 8 6\narchitecture 7\n"
    "bus 00000000:3B:00.0\npci_device 0x223510DE\nmem_total_mib 46068\nmem_reserved_mib 583\n"
    "mem_used_mib 0\nutil 0\nmem_util 0\npower 30\nenergy 0\npower_limit_w 300\n"
    "power_default_w 300\npower_min_w 100\npower_max_w 300\npower_instant 1\npower_average 1\n"
    "temp 35\nslowdown_c 95\nshutdown_c 98\ngpu_max_c 88\nsm_clock 1740\nmem_clock 7251\n"
    "sm_max 1740\nmem_max 7251\nsm_app 1740\nmem_app 7251\nthrottle 0\npstate 0\n"
    "ecc 1\necc_corrected 0\necc_uncorrected 0\nretired_pending 0\nremap_pending 0\nremap_failed 0\npersistence 0\ncompute_mode 0\n"
    "mig 0\npcie_gen 4\npcie_width 16\npcie_max_gen 4\npcie_max_width 16\npcie_tx_kib 0\n"
    "pcie_rx_kib 0\nprocesses 1\n";

static const char *find(const Table *table, const char *key) {
    for (int i = table->count - 1; i >= 0; i--)
        if (!strcmp(table->pairs[i].key, key)) return table->pairs[i].value;
    return NULL;
}

static void put(Table *table, const char *key, const char *value, int again) {
    for (int i = 0; i < table->count && !again; i++)
        if (!strcmp(table->pairs[i].key, key)) {
            snprintf(table->pairs[i].value, TEXT, "%s", value);
            return;
        }
    if (table->count == MAX_KEYS) return;
    Pair *pair = &table->pairs[table->count++];
    snprintf(pair->key, sizeof pair->key, "%s", key);
    snprintf(pair->value, TEXT, "%s", value);
}

static void take(Table *table, const char *key) {
    for (int i = 0; i < table->count; i++)
        if (!strcmp(table->pairs[i].key, key)) {
            memmove(&table->pairs[i], &table->pairs[i + 1], sizeof(Pair) * (size_t)(table->count - i - 1));
            table->count--;
            return;
        }
}

/* `err SYMBOL CODE` is kept as `err.SYMBOL`, `delay SYMBOL MS` as `delay.SYMBOL`. */
static void line_of(Table *table, char *line) {
    char key[72], second[72], joined[160];
    int used = 0;
    line[strcspn(line, "\r\n")] = 0;
    if (sscanf(line, "%71s %n", key, &used) < 1 || key[0] == '#') return;
    const char *value = line + used;
    if (!strcmp(key, "unset")) {
        take(table, value);
    } else if (!strcmp(key, "err") || !strcmp(key, "delay")) {
        int more = 0;
        if (sscanf(value, "%71s %n", second, &more) < 1) return;
        snprintf(joined, sizeof joined, "%s.%s", key, second);
        put(table, joined, value + more, 0);
    } else {
        put(table, key, value, !strcmp(key, "process") || !strcmp(key, "graphics"));
    }
}

static void defaults(Table *table, int index) {
    char line[TEXT];
    table->count = 0;
    for (const char *at = A40; *at;) {
        size_t length = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, at);
        line_of(table, line);
        at += length + 1;
    }
    snprintf(line, sizeof line, "GPU-00000000-0000-0000-0000-00000000000%d", index);
    put(table, "uuid", line, 0);
}

/* Call with the lock held. A script that is just being replaced keeps its last reading. */
static void reload(void) {
    const char *path = getenv("NVML_STANDIN");
    struct stat now;
    if (!path || stat(path, &now)) return;
    if (now.st_size == read_size && now.st_ino == read_inode &&
        now.st_mtim.tv_sec == read_at.tv_sec && now.st_mtim.tv_nsec == read_at.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    static char line[TEXT + 100];
    Table *table = &whole;
    whole.count = 0;
    gpu_count = 0;
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "gpu", 3) && (line[3] == '\n' || line[3] == ' ')) {
            if (gpu_count == MAX_GPUS) break;
            table = &gpus[gpu_count];
            defaults(table, gpu_count++);
        } else {
            line_of(table, line);
        }
    }
    fclose(file);
    read_at = now.st_mtim;
    read_size = now.st_size;
    read_inode = now.st_ino;
}

static double wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Seconds since `epoch` of the script. */
static double elapsed(void) {
    const char *epoch = find(&whole, "epoch");
    return epoch ? wall() - atof(epoch) : 0;
}

/* A curve: one number, or `SECOND:VALUE` points, straight between them. */
typedef struct { double t[64], v[64]; int n; } Curve;

static Curve curve(const char *text) {
    Curve c = { .n = 0 };
    if (!strchr(text, ':')) {
        c.t[0] = 0, c.v[0] = atof(text), c.n = 1;
        return c;
    }
    for (int used; c.n < 64 && sscanf(text, "%lf:%lf%n", &c.t[c.n], &c.v[c.n], &used) == 2; text += used)
        c.n++;
    return c;
}

static double once(const Curve *c, double t) {
    if (t <= c->t[0]) return c->v[0];
    for (int i = 1; i < c->n; i++)
        if (t <= c->t[i])
            return c->v[i - 1] + (c->v[i] - c->v[i - 1]) * (t - c->t[i - 1]) / (c->t[i] - c->t[i - 1]);
    return c->v[c->n - 1];
}

/* The exact integral from second 0 to t. */
static double once_sum(const Curve *c, double t) {
    double sum = 0, from = 0;
    for (int i = 0; i < c->n && from < t; i++) {
        double to = c->t[i] < t ? c->t[i] : t;
        if (to > from) sum += (once(c, from) + once(c, to)) / 2 * (to - from), from = to;
    }
    return from < t ? sum + once(c, t) * (t - from) : sum;
}

/* With `KEY_period SECONDS` the curve begins again and again. */
static double period(const Table *gpu, const char *key) {
    char name[96];
    snprintf(name, sizeof name, "%s_period", key);
    const char *text = find(gpu, name);
    return text ? atof(text) : 0;
}

static double at(const Table *gpu, const char *key, double t) {
    Curve c = curve(find(gpu, key));
    double p = period(gpu, key);
    return once(&c, p > 0 && t > 0 ? t - p * (double)(long)(t / p) : t);
}

static double sum_to(const Table *gpu, const char *key, double t) {
    Curve c = curve(find(gpu, key));
    double p = period(gpu, key);
    if (t <= 0) return 0;
    if (p <= 0) return once_sum(&c, t);
    double turns = (double)(long)(t / p);
    return turns * once_sum(&c, p) + once_sum(&c, t - turns * p);
}

/* What setters left: `UUID KEY VALUE` lines in SCRIPT.state, for every process that uses the script. */
static int stored(const char *uuid, const char *key, char *value, size_t size) {
    char path[1024], line[512], id[96], name[96], rest[128];
    int found = 0;
    snprintf(path, sizeof path, "%s.state", getenv("NVML_STANDIN") ? getenv("NVML_STANDIN") : "");
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%95s %95s %127[^\n]", id, name, rest) == 3 && !strcmp(id, uuid) && !strcmp(name, key)) {
            snprintf(value, size, "%s", rest);
            found = strcmp(rest, "none") != 0;
        }
    fclose(file);
    return found;
}

/* Appended: the last line of a key counts, and the file is the record of what was set. */
static void store(const char *uuid, const char *key, const char *value) {
    char path[1024];
    snprintf(path, sizeof path, "%s.state", getenv("NVML_STANDIN") ? getenv("NVML_STANDIN") : "");
    FILE *file = fopen(path, "a");
    if (!file) return;
    flock(fileno(file), LOCK_EX);
    fprintf(file, "%s %s %s\n", uuid, key, value);
    fclose(file);
}

#endif
