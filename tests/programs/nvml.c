/*
 * NVML as programs find it: by its name, at run time. What it says of a device has to be what the CUDA driver library says of it.
 *
 *   nvml             everything that programs ask for at their start, as NCCL, PyTorch and monitors do
 *
 * On a machine of its own it asks NVIDIA's library, but for what only a guest is refused, and changes nothing there.
 *
 * No header of NVML's is needed: what is used of it is declared here, from its documentation.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <ctype.h>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define CUDA(call) do { CUresult result_ = (call); if (result_) FAIL("%s: %d", #call, result_); } while (0)

/* The library is ours: the devices are a host's. */
static int guest;

/* A function of the library; what it answers is a number, 0 for success. */
static void *library;
static void *find(const char *name)
{
    void *found = dlsym(library, name);
    if (!found)
        FAIL("%s is missing", name);
    return found;
}
#define NVML(name, ...) ((unsigned (*)())find(#name))(__VA_ARGS__)
#define ANSWERS(code, name, ...) do { unsigned answer_ = NVML(name, ##__VA_ARGS__); \
    if (answer_ != (code)) FAIL("%s answers %u, not %u", #name, answer_, (unsigned)(code)); } while (0)
#define WORKS(name, ...) ANSWERS(0, name, ##__VA_ARGS__)

enum { UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       ARGUMENT_VERSION_MISMATCH = 25 };

struct pci { char legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char id[32]; };
struct field { unsigned id, scope; long long timestamp, latency; unsigned type, result; unsigned long long value; };

static const char *words(unsigned code)
{
    return ((const char *(*)(unsigned))find("nvmlErrorString"))(code);
}

static int same_letters(const char *a, const char *b)
{
    while (*a && tolower(*a) == tolower(*b))
        a++, b++;
    return tolower(*a) == tolower(*b);
}

static void before_init(void)
{
    unsigned count;
    char text[80];
    int version = 0;
    ANSWERS(UNINITIALIZED, nvmlShutdown);
    ANSWERS(UNINITIALIZED, nvmlDeviceGetCount_v2, &count);
    ANSWERS(UNINITIALIZED, nvmlEventSetCreate, &count);
    ANSWERS(UNINITIALIZED, nvmlDeviceSetPersistenceMode, NULL, 1);
    ANSWERS(UNINITIALIZED, nvmlSystemGetDriverVersion, text, 80);
    ANSWERS(UNINITIALIZED, nvmlSystemGetCudaDriverVersion_v2, &version);
    EXPECT(!strcmp(words(0), "Success") && !strcmp(words(3), "Not Supported") && !strcmp(words(999), "Unknown Error"));
}

static void system_wide(void)
{
    char text[80], name[80];
    unsigned count = 77;
    int major, version = 0, driver = 0;
    WORKS(nvmlSystemGetCudaDriverVersion_v2, &version);
    CUDA(cuDriverGetVersion(&driver));
    EXPECT(version == driver);
    ANSWERS(INVALID_ARGUMENT, nvmlSystemGetDriverVersion, NULL, 80);
    ANSWERS(INSUFFICIENT_SIZE, nvmlSystemGetDriverVersion, text, 3);
    WORKS(nvmlSystemGetDriverVersion, text, 80);
    EXPECT(sscanf(text, "%d.", &major) == 1 && major >= 500);
    WORKS(nvmlSystemGetNVMLVersion, name, 80);
    EXPECT(strlen(name) > strlen(text) && !strcmp(name + strlen(name) - strlen(text), text));
    WORKS(nvmlSystemGetProcessName, (unsigned)getpid(), name, 80);
    EXPECT(strstr(name, "nvml"));
    WORKS(nvmlUnitGetCount, &count);
    EXPECT(count == 0);
    if (guest) {
        ANSWERS(NOT_SUPPORTED, nvmlEventSetCreate, &count);
        ANSWERS(NOT_SUPPORTED, nvmlSystemGetConfComputeSettings, &count);
    }
}

/* One device, both ways. */
static void device(int ordinal, unsigned devices)
{
    CUdevice cuda;
    CUuuid uuid;
    void *gpu = NULL, *again = NULL;
    char id[32], name[96], other[96], text[96];
    struct pci pci;
    unsigned index, number, status, pending;
    int major, minor, value;
    memset(&pci, 0x55, sizeof pci);

    CUDA(cuDeviceGet(&cuda, ordinal));
    CUDA(cuDeviceGetPCIBusId(id, sizeof id, cuda));
    WORKS(nvmlDeviceGetHandleByPciBusId_v2, id, &gpu);
    WORKS(nvmlDeviceGetIndex, gpu, &index);
    EXPECT(index < devices);
    WORKS(nvmlDeviceGetHandleByIndex_v2, index, &again);
    EXPECT(gpu == again);
    WORKS(nvmlDeviceGetPciInfo_v3, gpu, &pci);
    EXPECT(same_letters(pci.legacy, id) && strlen(pci.id) == strlen(id) + 4 && same_letters(pci.id + 4, id));
    WORKS(nvmlDeviceGetHandleByPciBusId, pci.id, &again);
    EXPECT(gpu == again);

    CUDA(cuDeviceGetName(name, sizeof name, cuda));
    WORKS(nvmlDeviceGetName, gpu, other, (unsigned)sizeof other);
    EXPECT(!strcmp(name, other));
    ANSWERS(INSUFFICIENT_SIZE, nvmlDeviceGetName, gpu, other, (unsigned)strlen(name));

    CUDA(cuDeviceGetUuid(&uuid, cuda));
    WORKS(nvmlDeviceGetUUID, gpu, text, (unsigned)sizeof text);
    EXPECT(!strncmp(text, "GPU-", 4) && strlen(text) == 40);
    number = 0;
    for (const char *p = text + 4; *p; p++) {
        unsigned byte;
        if (*p == '-')
            continue;
        EXPECT(sscanf(p, "%2x", &byte) == 1 && byte == (unsigned char)uuid.bytes[number++]);
        p++;
    }
    EXPECT(number == 16);
    WORKS(nvmlDeviceGetHandleByUUID, text, &again);
    EXPECT(gpu == again);

    WORKS(nvmlDeviceGetCudaComputeCapability, gpu, &major, &minor);
    CUDA(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, cuda));
    EXPECT(value == major);
    CUDA(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, cuda));
    EXPECT(value == minor);
    CUDA(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_CLOCK_RATE, cuda));
    WORKS(nvmlDeviceGetMaxClockInfo, gpu, 1, &number);
    EXPECT((unsigned)value / 1000 == number);
    CUDA(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, cuda));
    WORKS(nvmlDeviceGetComputeMode, gpu, &number);
    EXPECT((unsigned)value == number);
    if (guest) {
        WORKS(nvmlDeviceGetMigMode, gpu, &number, &pending);
        EXPECT(number == 0 && pending == 0);
        ANSWERS(NO_PERMISSION, nvmlDeviceSetPersistenceMode, gpu, 1);
        ANSWERS(NOT_SUPPORTED, nvmlDeviceGetSerial, gpu, text, (unsigned)sizeof text);
        ANSWERS(INVALID_ARGUMENT, nvmlDeviceGetSerial, (char *)gpu + 4096, text, (unsigned)sizeof text);
    }
    ANSWERS(INVALID_ARGUMENT, nvmlDeviceGetName, NULL, text, (unsigned)sizeof text);

    for (unsigned caps = 0; caps <= 4; caps++)
        WORKS(nvmlDeviceGetP2PStatus, gpu, gpu, caps, &status);
    for (unsigned to = 0; to < devices; to++) {
        CUdevice peer;
        int can = 1;
        WORKS(nvmlDeviceGetHandleByIndex_v2, to, &again);
        WORKS(nvmlDeviceGetPciInfo_v3, again, &pci);
        /* CUDA may be shown fewer than there are. */
        if (cuDeviceGetByPCIBusId(&peer, pci.id))
            continue;
        if (peer != cuda)
            CUDA(cuDeviceCanAccessPeer(&can, cuda, peer));
        for (unsigned caps = 0; caps <= 1; caps++) {
            WORKS(nvmlDeviceGetP2PStatus, gpu, again, caps, &status);
            EXPECT((status == 0) == (can == 1));
        }
    }
}

/* What this process has allocated is used, and it is listed: by memory that is known of each device. */
static void memory_and_processes(int ordinal)
{
    CUdevice cuda;
    CUcontext context;
    CUdeviceptr p;
    char id[32];
    void *gpu;
    size_t total;
    enum { BYTES = 48 << 20 };
    struct { unsigned long long total, free, used; } before, then;
    struct { unsigned version; unsigned long long total, reserved, free, used; } v2 = { .version = 40 | 2u << 24 };
    struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } list[64];
    unsigned count = 0, answer, found = 0;

    CUDA(cuDeviceGet(&cuda, ordinal));
    CUDA(cuDeviceGetPCIBusId(id, sizeof id, cuda));
    CUDA(cuDeviceTotalMem(&total, cuda));
    WORKS(nvmlDeviceGetHandleByPciBusId_v2, id, &gpu);
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuCtxSynchronize());
    WORKS(nvmlDeviceGetMemoryInfo, gpu, &before);
    CUDA(cuMemAlloc(&p, BYTES));
    WORKS(nvmlDeviceGetMemoryInfo, gpu, &then);
    EXPECT(then.total >= total && then.free + then.used == then.total && before.total == then.total);
    EXPECT(then.used >= BYTES && (!guest || then.total == total));
    WORKS(nvmlDeviceGetMemoryInfo_v2, gpu, &v2);
    EXPECT(v2.total == then.total && v2.free + v2.used + v2.reserved == v2.total);
    v2.version++;
    ANSWERS(ARGUMENT_VERSION_MISMATCH, nvmlDeviceGetMemoryInfo_v2, gpu, &v2);

    answer = NVML(nvmlDeviceGetComputeRunningProcesses_v3, gpu, &count, NULL);
    /* Several GPUs are counted together; in a container, NVIDIA's library knows processes by other ids. */
    if (guest && answer != NOT_SUPPORTED) {
        EXPECT(answer == INSUFFICIENT_SIZE && count >= 1 && count <= 64);
        count = 64;
        WORKS(nvmlDeviceGetComputeRunningProcesses_v3, gpu, &count, list);
        for (unsigned i = 0; i < count; i++)
            if (list[i].pid == (unsigned)getpid()) {
                EXPECT(list[i].bytes >= BYTES && list[i].gpu_instance == ~0u);
                found++;
            }
        EXPECT(found == 1);
    }
    CUDA(cuMemFree(p));
    CUDA(cuDevicePrimaryCtxRelease(cuda));
}

/* What NCCL asks for, and may be told that there is none. */
static void links(void *gpu)
{
    unsigned value = 0;
    struct field field = { .id = 165, .scope = 0, .result = 77 };
    struct { unsigned version; unsigned char rest[60]; } fabric = { .version = 36 | 2u << 24 };
    unsigned answers[] = {
        NVML(nvmlDeviceGetNvLinkCapability, gpu, 0, 0, &value),
        NVML(nvmlDeviceGetNvLinkState, gpu, 0, &value),
        NVML(nvmlDeviceGetGpuFabricInfoV, gpu, &fabric),
        NVML(nvmlDeviceGetCurrPcieLinkGeneration, gpu, &value),
    };
    for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++)
        EXPECT(answers[i] == 0 || answers[i] == NOT_SUPPORTED);
    WORKS(nvmlDeviceGetFieldValues, gpu, 1, &field);
    EXPECT(field.result == 0 || field.result == NOT_SUPPORTED);
}

/* A child goes on, and may start NVML anew. */
static void child_of(void *gpu)
{
    int status;
    pid_t child = fork();
    EXPECT(child >= 0);
    if (!child) {
        char name[96];
        unsigned count = 0;
        if (guest)
            WORKS(nvmlDeviceGetName, gpu, name, (unsigned)sizeof name);
        WORKS(nvmlInit_v2);
        WORKS(nvmlDeviceGetCount_v2, &count);
        EXPECT(count > 0);
        WORKS(nvmlShutdown);
        WORKS(nvmlShutdown);
        ANSWERS(UNINITIALIZED, nvmlDeviceGetName, gpu, name, (unsigned)sizeof name);
        WORKS(nvmlInit_v2);
        WORKS(nvmlDeviceGetName, gpu, name, (unsigned)sizeof name);
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    unsigned devices = 0;
    int cuda_devices = 0;
    void *gpu;
    char text[8];
    guest = getenv("VGPU_SOCKET") || !access("/dev/vgpu", F_OK);
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library)
        FAIL("%s", dlerror());
    before_init();
    WORKS(nvmlInit_v2);
    system_wide();
    WORKS(nvmlDeviceGetCount_v2, &devices);
    ANSWERS(INVALID_ARGUMENT, nvmlDeviceGetHandleByIndex_v2, devices, &gpu);
    ANSWERS(NOT_FOUND, nvmlDeviceGetHandleByPciBusId_v2, "00ff:ff:1f.0", &gpu);
    ANSWERS(NOT_FOUND, nvmlDeviceGetHandleByUUID, "GPU-00000000-0000-0000-0000-000000000000", &gpu);
    WORKS(nvmlDeviceGetHandleByIndex_v2, 0, &gpu);
    /* Before the session is open: what NVML does must not need one, nor make CUDA fail in the parent. */
    child_of(gpu);
    CUDA(cuInit(0));
    CUDA(cuDeviceGetCount(&cuda_devices));
    EXPECT((unsigned)cuda_devices <= devices && cuda_devices > 0);
    for (int i = 0; i < cuda_devices; i++)
        device(i, devices);
    for (int i = 0; i < cuda_devices; i++)
        memory_and_processes(i);
    links(gpu);
    /* And with one. */
    child_of(gpu);

    WORKS(nvmlInit);
    WORKS(nvmlShutdown);
    ANSWERS(INSUFFICIENT_SIZE, nvmlDeviceGetUUID, gpu, text, (unsigned)sizeof text);
    WORKS(nvmlShutdown);
    ANSWERS(UNINITIALIZED, nvmlDeviceGetUUID, gpu, text, (unsigned)sizeof text);
    ANSWERS(UNINITIALIZED, nvmlShutdown);
    printf("nvml: %u devices, all right\n", devices);
    return 0;
}
