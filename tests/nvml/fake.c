/* A libnvidia-ml.so.1 without NVIDIA: it answers from a text file, and misbehaves where the file says so.
 *
 * The file is `profile` in the folder of this library. It is read again when it changes, as hardware changes under a
 * running process; only the library's own version is read once, at load, as a mapped library keeps the version it was.
 *
 *   library 580.105.08        what this library is
 *   module 580.105.08         what the kernel runs; where the two differ every call answers LIB_RM_VERSION_MISMATCH
 *   cuda 13000
 *   KEY VALUE                 of every GPU
 *   gpu 0000:53:00.0          begins a GPU
 *   KEY VALUE                 of this GPU; a key that stands nowhere is "not supported"
 *   nvlinks 18 6 2 PCI        how many, version, type of the far end, its address
 *   nvlink_down 7
 *   fault FUNCTION GPU DEED   GPU is a position or *; DEED is hang, crash, slow (300 ms) or an error number
 *
 * A hang ends when the file no longer asks for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, SMALL = 7, MISMATCH = 18, VERSION = 25 };
enum { MAX_GPUS = 16, MAX_KEYS = 64, MAX_FAULTS = 32 };

struct entry { char key[40], value[100]; };
struct sheet { int count; struct entry entries[MAX_KEYS]; };
struct fault { char function[64], gpu[8], deed[16]; };
struct profile {
    struct sheet all, gpus[MAX_GPUS];
    struct fault faults[MAX_FAULTS];
    int gpu_count, fault_count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct profile *now;
static struct stat seen;
static char path[4096], library[100];
static int opened;

static const char *look(const struct sheet *sheet, const char *key) {
    for (int i = 0; i < sheet->count; i++)
        if (!strcmp(sheet->entries[i].key, key)) return sheet->entries[i].value;
    return NULL;
}

static void put(struct profile *p, const char *key, const char *value) {
    struct sheet *sheet = p->gpu_count ? &p->gpus[p->gpu_count - 1] : &p->all;
    if (sheet->count == MAX_KEYS) abort();
    struct entry *entry = &sheet->entries[sheet->count++];
    snprintf(entry->key, sizeof entry->key, "%s", key);
    snprintf(entry->value, sizeof entry->value, "%s", value);
}

static struct profile *parse(FILE *file) {
    struct profile *p = calloc(1, sizeof *p); /* the old one is never freed: another thread may be reading it */
    char line[300], key[40], value[200];
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || sscanf(line, "%39s %199[^\n]", key, value) != 2) continue;
        if (!strcmp(key, "fault") && p->fault_count < MAX_FAULTS) {
            struct fault *f = &p->faults[p->fault_count++];
            sscanf(value, "%63s %7s %15s", f->function, f->gpu, f->deed);
            continue;
        }
        if (!strcmp(key, "gpu") && p->gpu_count < MAX_GPUS) {
            p->gpu_count++;
            put(p, "pci", value);
            continue;
        }
        put(p, key, value);
    }
    return p;
}

static struct profile *profile(void) {
    struct stat is;
    pthread_mutex_lock(&lock);
    if (!stat(path, &is) && (!now || is.st_ino != seen.st_ino || is.st_mtim.tv_nsec != seen.st_mtim.tv_nsec)) {
        FILE *file = fopen(path, "r");
        if (file) {
            now = parse(file);
            seen = is;
            fclose(file);
        }
    }
    struct profile *p = now;
    pthread_mutex_unlock(&lock);
    if (!p) abort();
    return p;
}

__attribute__((constructor)) static void load(void) {
    Dl_info info;
    dladdr((void *)load, &info);
    snprintf(path, sizeof path, "%s", info.dli_fname);
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, "profile");
    const char *version = look(&profile()->all, "library");
    snprintf(library, sizeof library, "%s", version ? version : "0");
}

static const char *deed(const char *function, int gpu) {
    struct profile *p = profile();
    for (int i = 0; i < p->fault_count; i++) {
        struct fault *f = &p->faults[i];
        if (strcmp(f->function, "*") && strcmp(f->function, function)) continue;
        if (!strcmp(f->gpu, "*") || (gpu >= 0 && atoi(f->gpu) == gpu)) return f->deed;
    }
    return NULL;
}

static int misbehave(const char *function, int gpu) {
    const char *what = deed(function, gpu);
    if (!what) return OK;
    if (!strcmp(what, "hang")) {
        while (what && !strcmp(what, "hang")) {
            usleep(10000);
            what = deed(function, gpu);
        }
        return OK;
    }
    if (!strcmp(what, "crash")) raise(SIGSEGV);
    if (!strcmp(what, "slow")) return usleep(300000), OK;
    return atoi(what);
}

static int enter(const char *function, int gpu) {
    const char *module = look(&profile()->all, "module");
    if (module && strcmp(module, library)) return MISMATCH;
    return misbehave(function, gpu);
}

#define ENTER(gpu)                                \
    do {                                          \
        int code_ = enter(__func__, gpu);         \
        if (code_ != OK) return code_;            \
    } while (0)

typedef void *Device;
static int at(Device device) { return (int)(intptr_t)device - 1; }

static const char *value_of(Device device, const char *key) {
    struct profile *p = profile();
    if (at(device) < 0 || at(device) >= p->gpu_count) return NULL;
    const char *value = look(&p->gpus[at(device)], key);
    return value ? value : look(&p->all, key);
}

static int text(const char *value, char *out, unsigned size) {
    if (!value) return NOT_SUPPORTED;
    if (strlen(value) >= size) return SMALL;
    if (!strcmp(value, "(not-utf-8)")) value = "\xfc\xff";
    return strcpy(out, value), OK;
}

static int number(Device device, const char *key, unsigned *out) {
    const char *value = value_of(device, key);
    return value ? (*out = (unsigned)strtoul(value, NULL, 0), OK) : NOT_SUPPORTED;
}

static int large(Device device, const char *key, unsigned long long *out) {
    const char *value = value_of(device, key);
    return value ? (*out = strtoull(value, NULL, 0), OK) : NOT_SUPPORTED;
}

#define TEXT(function, key)                                          \
    int function(Device device, char *out, unsigned size) {          \
        ENTER(at(device));                                           \
        return text(value_of(device, key), out, size);               \
    }
#define NUMBER(function, key)                                        \
    int function(Device device, unsigned *out) {                     \
        ENTER(at(device));                                           \
        return number(device, key, out);                             \
    }
#define LARGE(function, key)                                         \
    int function(Device device, unsigned long long *out) {           \
        ENTER(at(device));                                           \
        return large(device, key, out);                              \
    }
#define PAIR(function, one, two)                                     \
    int function(Device device, unsigned *first, unsigned *second) { \
        ENTER(at(device));                                           \
        if (number(device, one, first)) return NOT_SUPPORTED;        \
        return number(device, two, second);                          \
    }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER(-1);
    opened++;
    return OK;
}

int nvmlShutdown(void) {
    if (!opened) return UNINITIALIZED;
    ENTER(-1);
    opened--;
    return OK;
}

const char *nvmlErrorString(int code) { return code == OK ? "Success" : "Some Error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    ENTER(-1);
    return text(look(&profile()->all, "module"), out, size);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
    ENTER(-1);
    return text(library, out, size);
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER(-1);
    const char *value = look(&profile()->all, "cuda");
    return value ? (*out = atoi(value), OK) : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(-1);
    if (!opened) return UNINITIALIZED;
    *count = (unsigned)profile()->gpu_count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    ENTER((int)index);
    if ((int)index >= profile()->gpu_count) return INVALID_ARGUMENT;
    *device = (Device)(intptr_t)(index + 1);
    return OK;
}

static int same_address(const char *one, const char *two) {
    unsigned a[4], b[4];
    if (sscanf(one, "%x:%x:%x.%x", a, a + 1, a + 2, a + 3) != 4) return 0;
    if (sscanf(two, "%x:%x:%x.%x", b, b + 1, b + 2, b + 3) != 4) return 0;
    return !memcmp(a, b, sizeof a);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, Device *device) {
    struct profile *p = profile();
    for (int i = 0; i < p->gpu_count; i++) {
        if (!same_address(look(&p->gpus[i], "pci"), address)) continue;
        ENTER(i);
        *device = (Device)(intptr_t)(i + 1);
        return OK;
    }
    ENTER(-1);
    return NOT_FOUND;
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };

static void spell(const char *address, struct pci *out) {
    unsigned function = 0;
    memset(out, 0, sizeof *out);
    if (strlen(address) < 12 || !strncmp(address, "fffffff", 7)) {
        snprintf(out->address, sizeof out->address, "%s", address);
        return;
    }
    sscanf(address, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &function);
    snprintf(out->address, sizeof out->address, "%08X:%02X:%02X.%X", out->domain, out->bus, out->device, function);
}

int nvmlDeviceGetPciInfo_v3(Device device, struct pci *out) {
    ENTER(at(device));
    const char *address = value_of(device, "pci");
    if (!address) return NOT_SUPPORTED;
    spell(address, out);
    return OK;
}

TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios_version")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part_number")
NUMBER(nvmlDeviceGetArchitecture, "architecture")
NUMBER(nvmlDeviceGetModuleId, "module_id")
NUMBER(nvmlDeviceGetMinorNumber, "minor")
NUMBER(nvmlDeviceGetPowerUsage, "milliwatts")
NUMBER(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
PAIR(nvmlDeviceGetEccMode, "ecc", "ecc")
PAIR(nvmlDeviceGetMigMode, "mig", "mig")
PAIR(nvmlDeviceGetCudaComputeCapability, "capability_major", "capability_minor")
PAIR(nvmlDeviceGetUtilizationRates_, "utilization", "utilization")

int nvmlDeviceGetUtilizationRates(Device device, unsigned out[2]) {
    ENTER(at(device));
    return nvmlDeviceGetUtilizationRates_(device, out, out + 1);
}

int nvmlDeviceGetMemoryInfo(Device device, unsigned long long out[3]) {
    ENTER(at(device));
    unsigned long long reserved = 0;
    if (large(device, "memory", out) || large(device, "memory_used", out + 2)) return NOT_SUPPORTED;
    large(device, "memory_reserved", &reserved);
    out[2] += reserved; /* the first version counts what the driver keeps for itself as used */
    out[1] = out[0] - out[2];
    return OK;
}

LARGE(nvmlDeviceGetCurrentClocksThrottleReasons, "clocks_event_reasons")

int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *out) {
    (void)sensor;
    ENTER(at(device));
    return number(device, "celsius", out);
}

int nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned counter, unsigned long long *out) {
    (void)counter;
    ENTER(at(device));
    return large(device, kind ? "ecc_uncorrected" : "ecc_corrected", out);
}

static int link_part(Device device, unsigned link, int part, unsigned *out, char *address) {
    unsigned count, version, kind, down = 999;
    char far[40] = "";
    const char *value = value_of(device, "nvlinks");
    if (!value) return NOT_SUPPORTED;
    if (sscanf(value, "%u %u %u %39s", &count, &version, &kind, far) < 3) return NOT_SUPPORTED;
    if (link >= count) return INVALID_ARGUMENT;
    number(device, "nvlink_down", &down);
    if (part == 0) *out = link != down;
    if (part == 1) *out = version;
    if (part == 2) *out = kind;
    if (part == 3 && !far[0]) return NOT_SUPPORTED;
    if (part == 3) strcpy(address, far);
    return OK;
}

int nvmlDeviceGetNvLinkState(Device device, unsigned link, unsigned *out) {
    ENTER(at(device));
    return link_part(device, link, 0, out, NULL);
}

int nvmlDeviceGetNvLinkVersion(Device device, unsigned link, unsigned *out) {
    ENTER(at(device));
    return link_part(device, link, 1, out, NULL);
}

int nvmlDeviceGetNvLinkRemoteDeviceType(Device device, unsigned link, unsigned *out) {
    ENTER(at(device));
    return link_part(device, link, 2, out, NULL);
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device device, unsigned link, struct pci *out) {
    ENTER(at(device));
    char address[40] = "";
    unsigned none;
    int code = link_part(device, link, 3, &none, address);
    if (code == OK) spell(address, out);
    return code;
}

/* What an old driver's library does not have. */
#ifndef OLD

int nvmlDeviceGetTemperatureV(Device device, unsigned out[3]) {
    ENTER(at(device));
    if (out[0] != 0x100000C) return VERSION;
    return number(device, "celsius", out + 2);
}

int nvmlDeviceGetMemoryInfo_v2(Device device, unsigned long long out[5]) {
    ENTER(at(device));
    if ((unsigned)out[0] != 0x02000028) return VERSION;
    if (large(device, "memory", out + 1) || large(device, "memory_used", out + 4)) return NOT_SUPPORTED;
    out[2] = 0;
    large(device, "memory_reserved", out + 2);
    out[3] = out[1] - out[4] - out[2];
    return OK;
}

LARGE(nvmlDeviceGetCurrentClocksEventReasons, "clocks_event_reasons")

int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *not, unsigned *pending, unsigned *failed) {
    ENTER(at(device));
    *corrected = *not = 0;
    if (number(device, "row_remap_pending", pending)) return NOT_SUPPORTED;
    return number(device, "row_remap_failed", failed);
}

struct field { uint32_t id, scope; int64_t stamp, latency; uint32_t type, code; union { unsigned u; uint64_t all; } value; };

int nvmlDeviceGetFieldValues(Device device, int count, struct field *fields) {
    ENTER(at(device));
    for (int i = 0; i < count; i++) {
        struct field *f = &fields[i];
        f->type = 1; /* unsigned int */
        f->value.all = 0;
        const char *key = f->id == 91 ? "nvlinks" : f->id == 186 ? "milliwatts" : f->id == 230 ? "recovery" : "";
        f->code = (uint32_t)number(device, key, &f->value.u);
    }
    return OK;
}

struct fabric { unsigned version; unsigned char cluster[16]; unsigned status, clique, state, mask; unsigned char summary; };

int nvmlDeviceGetGpuFabricInfoV(Device device, struct fabric *out) {
    ENTER(at(device));
    unsigned most = 3, fill = 0;
    number(device, "fabric_version", &most);
    if (out->version >> 24 > most) return VERSION;
    if (number(device, "fabric_state", &out->state)) return NOT_SUPPORTED;
    number(device, "fabric_cluster", &fill);
    memset(out->cluster, (int)fill, sizeof out->cluster);
    out->status = 0;
    out->clique = 0;
    number(device, "fabric_clique", &out->clique);
    return OK;
}

#endif
