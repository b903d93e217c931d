/* Stands in for the host's NVML: one device, with one link to a switch. What is missing here is what an old driver does not have. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; } pci_info;

static int device, started;

int nvmlInit_v2(void) { started++; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length)
{
    return snprintf(text, length, "580.65.06") < (int)length ? 0 : 7;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **to)
{
    if (!started)
        return 1;
    if (strcmp(uuid, "GPU-30313233-3435-3637-3839-616263646566"))
        return 6;
    *to = &device;
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *of, memory_v2 *to)
{
    if (of != &device || to->version != (sizeof *to | 2u << 24))
        return 2;
    to->total = 1000;
    to->reserved = 100;
    to->free = 600;
    to->used = 300;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *of, unsigned *to) { to[0] = 98; to[1] = 7; return 0; }
int nvmlDeviceGetTemperature(void *of, unsigned sensor, unsigned *to) { *to = 41; return sensor; }
int nvmlDeviceGetFanSpeed(void *of, unsigned *to) { return 3; }
int nvmlDeviceGetClockInfo(void *of, unsigned kind, unsigned *to) { *to = 1000 + kind; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *of, unsigned long long *to) { *to = 1ull << 40; return 0; }
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_info;

int nvmlDeviceGetComputeRunningProcesses_v3(void *of, unsigned *count, process_info *to)
{
    if (of != &device || *count < 2)
        return 7;
    to[0] = (process_info) { .pid = 4711, .used = 1ull << 33 };
    to[1] = (process_info) { .pid = 4712, .used = ~0ull };
    *count = 2;
    return 0;
}
int nvmlDeviceGetNvLinkState(void *of, unsigned link, unsigned *to) { *to = 1; return link == 2 ? 0 : 3; }
int nvmlDeviceGetNvLinkCapability(void *of, unsigned link, unsigned capability, unsigned *to)
{
    *to = capability == 0 || capability == 2;
    return link == 2 ? 0 : 3;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *of, unsigned link, unsigned *to) { *to = 2; return 0; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *of, unsigned link, pci_info *to)
{
    to->domain = 1;
    to->bus = 0xc1;
    to->device = 3;
    return 0;
}
