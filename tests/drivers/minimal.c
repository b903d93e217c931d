/*
 * As much of a driver's library as a worker needs to open a session: one device without memory to give, and threads of its own
 * from cuInit on, as NVIDIA's has. cuInit fails while there is a file `broken` in the home folder.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 3, UNKNOWN = 999 };

/* Attributes that say no: the device reaches memory that is not registered. */
enum { PAGEABLE_MEMORY_ACCESS = 88, USES_HOST_PAGE_TABLES = 100 };

static int initialised;

static void *rest(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

unsigned cuInit(unsigned flags)
{
    char broken[4096];
    pthread_t thread;
    (void)flags;
    if (initialised)
        return SUCCESS;
    snprintf(broken, sizeof broken, "%s/broken", getenv("HOME"));
    if (access(broken, F_OK) == 0 || pthread_create(&thread, NULL, rest, NULL) != 0)
        return UNKNOWN;
    initialised = 1;
    return SUCCESS;
}

unsigned cuDriverGetVersion(int *version)
{
    *version = 13000;
    return SUCCESS;
}

unsigned cuDeviceGetCount(int *count)
{
    *count = 1;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}

unsigned cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return SUCCESS;
}

unsigned cuDeviceGetName(char *name, int length, int device)
{
    (void)device;
    snprintf(name, (size_t)length, "minimal");
    return SUCCESS;
}

unsigned cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
    memset(uuid, 7 + device, 16);
    return SUCCESS;
}

unsigned cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    (void)device;
    *bytes = (size_t)1 << 30;
    return SUCCESS;
}

unsigned cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    *value = attribute != PAGEABLE_MEMORY_ACCESS && attribute != USES_HOST_PAGE_TABLES;
    return SUCCESS;
}

/* The probe's context. */
unsigned cuDevicePrimaryCtxRetain(void **context, int device)
{
    (void)device;
    *context = &initialised;
    return SUCCESS;
}

unsigned cuDevicePrimaryCtxRelease_v2(int device)
{
    (void)device;
    return SUCCESS;
}

unsigned cuCtxSetCurrent(void *context)
{
    (void)context;
    return SUCCESS;
}

unsigned cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}
