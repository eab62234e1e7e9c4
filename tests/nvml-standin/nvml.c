/* A stand-in for NVIDIA's libnvidia-ml.so.1: the functions that sweepd calls, answering from a
 * script. Never touches a GPU. Written from the facts of the interface: names, numbers, layouts.
 *
 *     cc -shared -fPIC -O1 -o libnvidia-ml.so.1 nvml.c -lpthread
 *
 * With -DMINIMAL only what NVML needs to begin is exported: a driver too old for all the rest.
 */
#define _GNU_SOURCE
#include "script.h"
#include <dirent.h>

enum {
    OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMED_OUT = 10
};
typedef unsigned int U;
typedef unsigned long long L;
typedef Table *Device;

/* The scripted error of a call, after its scripted delay. Locks; unlocks again unless it returns OK. */
static int enter(const char *symbol, Device device) {
    char key[160];
    const char *text;
    double pause = 0;
    int code = OK;
    pthread_mutex_lock(&lock);
    reload();
    snprintf(key, sizeof key, "delay.%s", symbol);
    if ((device && (text = find(device, key))) || (text = find(&whole, key))) pause = atof(text);
    if (pause > 0) {
        pthread_mutex_unlock(&lock);
        usleep((useconds_t)(pause * 1000));
        pthread_mutex_lock(&lock);
        reload();
    }
    if (device && (device < gpus || device >= gpus + gpu_count)) code = INVALID;
    for (int i = 0; i < 2 && code == OK; i++) {
        snprintf(key, sizeof key, "err.%s", i ? "all" : symbol);
        if ((device && (text = find(device, key))) || (text = find(&whole, key))) code = atoi(text);
    }
    if (code != OK) pthread_mutex_unlock(&lock);
    return code;
}

static int leave(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

#define CALL(device) int entered = enter(__func__, device); if (entered != OK) return entered
#define NEED(device, key) if (!find(device, key)) return leave(UNSUPPORTED)

static int text_of(Table *table, const char *key, char *out, U size) {
    const char *value = find(table, key);
    if (!value) return leave(UNSUPPORTED);
    if (strlen(value) + 1 > size) return leave(TOO_SMALL);
    strcpy(out, value);
    return leave(OK);
}

static int number_of(Device device, const char *key, double scale, U *out) {
    NEED(device, key);
    *out = (U)(at(device, key, elapsed()) * scale + 0.5);
    return leave(OK);
}

/* A value that a setter may have changed. */
static int setting_of(Device device, const char *key, double scale, U *out) {
    char value[128];
    NEED(device, key);
    if (stored(find(device, "uuid"), key, value, sizeof value)) {
        *out = (U)(atof(value) * scale + 0.5);
        return leave(OK);
    }
    return number_of(device, key, scale, out);
}

/* ---- the library ---- */
int nvmlInit_v2(void) {
    CALL(NULL);
    const char *code = find(&whole, "init");
    return leave(code ? atoi(code) : OK);
}
int nvmlInitWithFlags(U flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }

#ifndef MINIMAL
int nvmlSystemGetDriverVersion(char *out, U size) {
    CALL(NULL);
    if (!find(&whole, "driver")) put(&whole, "driver", "550.54.15", 0);
    return text_of(&whole, "driver", out, size);
}
int nvmlSystemGetNVMLVersion(char *out, U size) {
    CALL(NULL);
    if (!find(&whole, "nvml")) put(&whole, "nvml", "12.550.54.15", 0);
    return text_of(&whole, "nvml", out, size);
}
int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    CALL(NULL);
    *out = find(&whole, "cuda") ? atoi(find(&whole, "cuda")) : 12040;
    return leave(OK);
}
#endif
int nvmlDeviceGetCount_v2(U *out) {
    CALL(NULL);
    *out = (U)gpu_count;
    return leave(OK);
}
int nvmlDeviceGetHandleByIndex_v2(U index, Device *out) {
    CALL(NULL);
    if (index >= (U)gpu_count) return leave(INVALID);
    *out = &gpus[index];
    const char *lost = find(*out, "err.nvmlDeviceGetHandleByIndex_v2");
    return leave(lost ? atoi(lost) : OK);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    CALL(NULL);
    for (int i = 0; i < gpu_count; i++)
        if (!strcmp(find(&gpus[i], "uuid"), uuid)) {
            *out = &gpus[i];
            const char *lost = find(*out, "err.nvmlDeviceGetHandleByUUID");
            return leave(lost ? atoi(lost) : OK);
        }
    return leave(NOT_FOUND);
}

/* ---- one GPU ---- */
int nvmlDeviceGetUUID(Device d, char *out, U size) { CALL(d); return text_of(d, "uuid", out, size); }
int nvmlDeviceGetIndex(Device d, U *out) { CALL(d); *out = (U)(d - gpus); return leave(OK); }

#ifndef MINIMAL
int nvmlDeviceGetName(Device d, char *out, U size) { CALL(d); return text_of(d, "name", out, size); }
int nvmlDeviceGetSerial(Device d, char *out, U size) { CALL(d); return text_of(d, "serial", out, size); }
int nvmlDeviceGetVbiosVersion(Device d, char *out, U size) { CALL(d); return text_of(d, "vbios", out, size); }
int nvmlDeviceGetMinorNumber(Device d, U *out) { CALL(d); return number_of(d, "minor", 1, out); }
int nvmlDeviceGetArchitecture(Device d, U *out) { CALL(d); return number_of(d, "architecture", 1, out); }
int nvmlDeviceGetCudaComputeCapability(Device d, int *major, int *minor) {
    CALL(d);
    NEED(d, "cc");
    sscanf(find(d, "cc"), "%d %d", major, minor);
    return leave(OK);
}

typedef struct { char legacy[16]; U domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Device d, Pci *out) {
    CALL(d);
    NEED(d, "bus");
    memset(out, 0, sizeof *out);
    const char *bus = find(d, "bus");
    sscanf(bus, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->bus_id, sizeof out->bus_id, "%s", bus);
    snprintf(out->legacy, sizeof out->legacy, "%s", strlen(bus) > 12 ? bus + 4 : bus);
    if (find(d, "pci_device")) out->id = (U)strtoul(find(d, "pci_device"), NULL, 16);
    return leave(OK);
}

/* ---- processes ---- */
typedef struct { U pid; L memory; U gi, ci; } Process;

static int names(const char *list, Device d) {
    char entry[128], index[16];
    const char *uuid = find(d, "engine_of") ? find(d, "engine_of") : find(d, "uuid");
    snprintf(index, sizeof index, "%d", find(d, "engine_of") ? -1 : (int)(d - gpus));
    for (int used; sscanf(list, "%127[^,]%n", entry, &used) == 1; list += used + (list[used] == ',')) {
        if (!strcmp(entry, uuid) || !strcmp(entry, index)) return 1;
        if (!list[used]) break;
    }
    return 0;
}

/* `process_engine MIB`: every process of an attempt whose environment pins it to this GPU, or to the
 * one of `engine_of UUID`: a driver that puts it elsewhere. */
static int is_pinned(const char *pid, Device d) {
    char path[300], *data = NULL, *marker = NULL, *pin = NULL;
    size_t size = 0, length = 0;
    ssize_t got;
    snprintf(path, sizeof path, "/proc/%.200s/environ", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while ((got = getdelim(&data, &size, 0, file)) > 0 && length++ < 400) {
        if (!strncmp(data, "SWEEPD_ATTEMPT=", 15)) marker = marker ? marker : strdup(data);
        if (!strncmp(data, "CUDA_VISIBLE_DEVICES=", 21)) pin = pin ? pin : strdup(data);
    }
    fclose(file);
    int pinned = marker && pin && names(pin + 21, d);
    free(data), free(marker), free(pin);
    return pinned;
}

static int processes(Device d, const char *key, Process *out, int most) {
    int count = 0;
    for (int i = 0; i < d->count && count < most; i++) {
        U pid;
        double mib;
        if (!strcmp(d->pairs[i].key, key) && sscanf(d->pairs[i].value, "%u %lf", &pid, &mib) == 2)
            out[count++] = (Process){ pid, (L)(mib * 1048576), ~0u, ~0u };
    }
    const char *engine = find(d, "process_engine");
    if (engine && !strcmp(key, "process")) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; all && (entry = readdir(all)) && count < most;)
            if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && is_pinned(entry->d_name, d))
                out[count++] = (Process){ (U)atoi(entry->d_name), (L)(atof(engine) * 1048576), ~0u, ~0u };
        if (all) closedir(all);
    }
    return count;
}

static int list(Device d, const char *key, U *count, Process *out) {
    Process found[64];
    NEED(d, "processes");
    int have = processes(d, key, found, 64);
    U room = *count;
    *count = (U)have;
    if (have == 0) return leave(OK);
    if (!out || room < (U)have) return leave(TOO_SMALL);
    memcpy(out, found, sizeof(Process) * (size_t)have);
    return leave(OK);
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device d, U *count, Process *out) { CALL(d); return list(d, "process", count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device d, U *count, Process *out) { CALL(d); return list(d, "graphics", count, out); }

/* ---- memory ---- */
typedef struct { U version; L total, reserved, free, used; } Memory2;
int nvmlDeviceGetMemoryInfo_v2(Device d, Memory2 *out) {
    CALL(d);
    NEED(d, "mem_total_mib");
    Process found[64];
    L used = (L)(at(d, "mem_used_mib", elapsed()) * 1048576);
    int have = processes(d, "process", found, 64);
    for (int i = 0; i < have; i++) used += found[i].memory;
    out->total = (L)(atof(find(d, "mem_total_mib")) * 1048576);
    out->reserved = find(d, "mem_reserved_mib") ? (L)(atof(find(d, "mem_reserved_mib")) * 1048576) : 0;
    out->used = used;
    out->free = out->total > used + out->reserved ? out->total - used - out->reserved : 0;
    return leave(OK);
}

/* ---- power and energy ---- */
static double averaged(Device d, double t) {
    double window = find(d, "power_average_s") ? atof(find(d, "power_average_s")) : 0;
    if (window <= 0 || t <= 0) return at(d, "power", t);
    double from = t > window ? t - window : 0;
    return (sum_to(d, "power", t) - sum_to(d, "power", from)) / (t - from);
}
int nvmlDeviceGetPowerUsage(Device d, U *out) {
    CALL(d);
    NEED(d, "power");
    *out = (U)(averaged(d, elapsed()) * 1000 + 0.5);
    return leave(OK);
}
/* `energy N`: N mJ on the counter at second 0; `energy_wrap N`: it begins again at N mJ. */
static L energy(Device d) {
    L value = (L)(atof(find(d, "energy")) + sum_to(d, "power", elapsed()) * 1000);
    return find(d, "energy_wrap") ? value % (L)atof(find(d, "energy_wrap")) : value;
}
int nvmlDeviceGetTotalEnergyConsumption(Device d, L *out) {
    CALL(d);
    NEED(d, "energy");
    NEED(d, "power");
    *out = energy(d);
    return leave(OK);
}
int nvmlDeviceGetPowerManagementLimit(Device d, U *out) { CALL(d); return setting_of(d, "power_limit_w", 1000, out); }
int nvmlDeviceGetEnforcedPowerLimit(Device d, U *out) { CALL(d); return setting_of(d, "power_limit_w", 1000, out); }
int nvmlDeviceGetPowerManagementDefaultLimit(Device d, U *out) { CALL(d); return number_of(d, "power_default_w", 1000, out); }
int nvmlDeviceGetPowerManagementLimitConstraints(Device d, U *least, U *most) {
    CALL(d);
    NEED(d, "power_min_w");
    NEED(d, "power_max_w");
    *least = (U)(atof(find(d, "power_min_w")) * 1000);
    *most = (U)(atof(find(d, "power_max_w")) * 1000);
    return leave(OK);
}

/* ---- clocks, temperature, load ---- */
static int is_hot(Device d) {
    const char *limit = find(d, "throttle_at_c");
    return limit && find(d, "temp") && at(d, "temp", elapsed()) >= atof(limit);
}
static U locked(Device d, const char *key, U clock) {
    char value[128];
    U least, most;
    if (!stored(find(d, "uuid"), key, value, sizeof value) || sscanf(value, "%u %u", &least, &most) != 2) return clock;
    return clock < least ? least : clock > most ? most : clock;
}
static int clock_of(Device d, int type, const char *sm, const char *memory, U *out) {
    const char *key = type == 2 ? memory : type == 3 ? "video_clock" : sm;
    NEED(d, key);
    *out = (U)at(d, key, elapsed());
    return OK;
}
int nvmlDeviceGetClockInfo(Device d, int type, U *out) {
    CALL(d);
    int code = clock_of(d, type, "sm_clock", "mem_clock", out);
    if (code != OK) return code;
    *out = locked(d, type == 2 ? "locked_mem" : "locked_gpu", *out);
    if (is_hot(d) && type != 2) *out = *out / 2;
    return leave(OK);
}
int nvmlDeviceGetMaxClockInfo(Device d, int type, U *out) { CALL(d); int code = clock_of(d, type, "sm_max", "mem_max", out); return code ? code : leave(OK); }
int nvmlDeviceGetApplicationsClock(Device d, int type, U *out) { CALL(d); int code = clock_of(d, type, "sm_app", "mem_app", out); return code ? code : leave(OK); }
int nvmlDeviceGetDefaultApplicationsClock(Device d, int type, U *out) { CALL(d); int code = clock_of(d, type, "sm_app", "mem_app", out); return code ? code : leave(OK); }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device d, L *out) {
    CALL(d);
    NEED(d, "throttle");
    *out = (L)at(d, "throttle", elapsed()) | (is_hot(d) ? 0x20 : 0);
    return leave(OK);
}
int nvmlDeviceGetPerformanceState(Device d, U *out) { CALL(d); return number_of(d, "pstate", 1, out); }
int nvmlDeviceGetTemperature(Device d, int sensor, U *out) { CALL(d); (void)sensor; return number_of(d, "temp", 1, out); }
int nvmlDeviceGetTemperatureThreshold(Device d, int which, U *out) {
    CALL(d);
    const char *key = which == 0 ? "shutdown_c" : which == 1 ? "slowdown_c" : which == 3 ? "gpu_max_c" : "other_c";
    return number_of(d, key, 1, out);
}
typedef struct { U gpu, memory; } Utilization;
int nvmlDeviceGetUtilizationRates(Device d, Utilization *out) {
    CALL(d);
    NEED(d, "util");
    out->gpu = (U)at(d, "util", elapsed());
    out->memory = find(d, "mem_util") ? (U)at(d, "mem_util", elapsed()) : 0;
    return leave(OK);
}

/* ---- fields ---- */
typedef struct { U id, scope; long long stamp, latency; U type; int code; union { double d; U u; L l; } value; } Field;
int nvmlDeviceGetFieldValues(Device d, int count, Field *fields) {
    CALL(d);
    for (int i = 0; i < count; i++) {
        Field *f = &fields[i];
        f->code = UNSUPPORTED;
        f->type = 1;
        f->stamp = (long long)(wall() * 1e6);
        f->latency = 1;
        if (f->id == 186 && find(d, "power") && find(d, "power_instant"))
            f->value.u = (U)(at(d, "power", elapsed()) * 1000 + 0.5), f->code = OK;
        if (f->id == 185 && find(d, "power") && find(d, "power_average"))
            f->value.u = (U)(averaged(d, elapsed()) * 1000 + 0.5), f->code = OK;
        if (f->id == 82 && find(d, "mem_temp"))
            f->value.u = (U)at(d, "mem_temp", elapsed()), f->code = OK;
        if (f->id == 144 && find(d, "remap_pending"))
            f->value.u = (U)at(d, "remap_pending", elapsed()), f->code = OK;
        if (f->id == 145 && find(d, "remap_failed"))
            f->value.u = (U)at(d, "remap_failed", elapsed()), f->code = OK;
        if (f->id == 83 && find(d, "energy") && find(d, "power"))
            f->type = 3, f->value.l = energy(d), f->code = OK;
    }
    return leave(OK);
}

/* ---- modes and errors ---- */
int nvmlDeviceGetEccMode(Device d, U *now, U *pending) {
    CALL(d);
    NEED(d, "ecc");
    *now = (U)atoi(find(d, "ecc"));
    *pending = find(d, "ecc_pending") ? (U)atoi(find(d, "ecc_pending")) : *now;
    return leave(OK);
}
int nvmlDeviceGetTotalEccErrors(Device d, int type, int counter, L *out) {
    CALL(d);
    (void)counter;
    const char *key = type ? "ecc_uncorrected" : "ecc_corrected";
    NEED(d, key);
    *out = (L)at(d, key, elapsed());
    return leave(OK);
}
int nvmlDeviceGetRetiredPagesPendingStatus(Device d, U *out) { CALL(d); return number_of(d, "retired_pending", 1, out); }
int nvmlDeviceGetPersistenceMode(Device d, U *out) { CALL(d); return setting_of(d, "persistence", 1, out); }
int nvmlDeviceGetComputeMode(Device d, U *out) { CALL(d); return setting_of(d, "compute_mode", 1, out); }
int nvmlDeviceGetMigMode(Device d, U *now, U *pending) {
    CALL(d);
    NEED(d, "mig");
    *now = *pending = (U)atoi(find(d, "mig"));
    return leave(OK);
}

/* ---- links ---- */
int nvmlDeviceGetCurrPcieLinkGeneration(Device d, U *out) { CALL(d); return number_of(d, "pcie_gen", 1, out); }
int nvmlDeviceGetCurrPcieLinkWidth(Device d, U *out) { CALL(d); return number_of(d, "pcie_width", 1, out); }
int nvmlDeviceGetMaxPcieLinkGeneration(Device d, U *out) { CALL(d); return number_of(d, "pcie_max_gen", 1, out); }
int nvmlDeviceGetMaxPcieLinkWidth(Device d, U *out) { CALL(d); return number_of(d, "pcie_max_width", 1, out); }
int nvmlDeviceGetPcieThroughput(Device d, int which, U *out) { CALL(d); return number_of(d, which ? "pcie_rx_kib" : "pcie_tx_kib", 1, out); }
int nvmlDeviceGetNvLinkState(Device d, U link, U *out) {
    CALL(d);
    NEED(d, "nvlinks");
    *out = link < (U)atoi(find(d, "nvlinks"));
    return leave(OK);
}
int nvmlDeviceGetNvLinkVersion(Device d, U link, U *out) { CALL(d); (void)link; return number_of(d, "nvlink_version", 1, out); }

/* ---- setters: recorded in SCRIPT.state ---- */
static int set(Device d, const char *key, const char *value) {
    store(find(d, "uuid"), key, value);
    return leave(OK);
}
static int set_pair(Device d, const char *key, U least, U most) {
    char value[64];
    snprintf(value, sizeof value, "%u %u", least, most);
    return set(d, key, value);
}
static int set_number(Device d, const char *key, double number) {
    char value[64];
    NEED(d, key);
    snprintf(value, sizeof value, "%g", number);
    return set(d, key, value);
}
int nvmlDeviceSetGpuLockedClocks(Device d, U least, U most) { CALL(d); return set_pair(d, "locked_gpu", least, most); }
int nvmlDeviceResetGpuLockedClocks(Device d) { CALL(d); return set(d, "locked_gpu", "none"); }
int nvmlDeviceSetMemoryLockedClocks(Device d, U least, U most) { CALL(d); return set_pair(d, "locked_mem", least, most); }
int nvmlDeviceResetMemoryLockedClocks(Device d) { CALL(d); return set(d, "locked_mem", "none"); }
int nvmlDeviceSetPowerManagementLimit(Device d, U milliwatts) {
    CALL(d);
    const char *least = find(d, "power_min_w"), *most = find(d, "power_max_w");
    if ((least && milliwatts < atof(least) * 1000) || (most && milliwatts > atof(most) * 1000)) return leave(INVALID);
    /* A card that takes the order and does something else. */
    return set_number(d, "power_limit_w", find(d, "power_limit_ignored") ? atof(find(d, "power_limit_w")) : milliwatts / 1000.0);
}
int nvmlDeviceSetPersistenceMode(Device d, U mode) { CALL(d); return set_number(d, "persistence", mode); }
int nvmlDeviceSetComputeMode(Device d, U mode) { CALL(d); return set_number(d, "compute_mode", mode); }

/* ---- events: `xid NUMBER CODE` is told once for each new number ---- */
typedef struct { Device devices[MAX_GPUS]; int seen[MAX_GPUS]; int count; } Set;
typedef struct { Device device; L type, data; U gi, ci; } Event;
static int xid_number(Device d) { return find(d, "xid") ? atoi(find(d, "xid")) : 0; }
int nvmlEventSetCreate(Set **out) { CALL(NULL); *out = calloc(1, sizeof(Set)); return leave(OK); }
int nvmlEventSetFree(Set *set) { free(set); return OK; }
int nvmlDeviceGetSupportedEventTypes(Device d, L *out) { CALL(d); *out = 8; return leave(OK); }
int nvmlDeviceRegisterEvents(Device d, L types, Set *set) {
    CALL(d);
    (void)types;
    if (set->count == MAX_GPUS) return leave(INVALID);
    set->devices[set->count] = d;
    set->seen[set->count++] = xid_number(d);
    return leave(OK);
}
int nvmlEventSetWait_v2(Set *set, Event *out, U timeout_ms) {
    for (U waited = 0;; waited += 10) {
        CALL(NULL);
        for (int i = 0; i < set->count; i++) {
            int number = xid_number(set->devices[i]), code = 0;
            if (number <= set->seen[i]) continue;
            sscanf(find(set->devices[i], "xid"), "%*d %d", &code);
            set->seen[i] = number;
            *out = (Event){ set->devices[i], 8, (L)code, ~0u, ~0u };
            return leave(OK);
        }
        leave(OK);
        if (waited >= timeout_ms) return TIMED_OUT;
        usleep(10000);
    }
}
#endif
