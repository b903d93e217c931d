/* As much of a driver as launches are marked with. What a stream is given waits in a list until it is carried out. */
#include <stddef.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, ALREADY_REGISTERED = 712, MOST = 65536 };

static struct { unsigned long long *at, value; } waiting[MOST];
static int count, carried_out;
static unsigned capture_status;
static void *registered;

unsigned cuThreadExchangeStreamCaptureMode(unsigned *mode) { *mode = 0; return SUCCESS; }
unsigned cuCtxSetCurrent(size_t context) { (void)context; return SUCCESS; }
unsigned cuStreamIsCapturing(size_t stream, unsigned *status) { (void)stream; *status = capture_status; return SUCCESS; }

unsigned cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags)
{
    (void)bytes, (void)flags;
    if (at == registered)
        return ALREADY_REGISTERED;
    registered = at;
    return SUCCESS;
}

unsigned cuStreamWriteValue64_v2(size_t stream, unsigned long long at, unsigned long long value, unsigned flags)
{
    (void)stream, (void)flags;
    if (count == MOST)
        return INVALID_VALUE;
    waiting[count].at = (unsigned long long *)at;
    waiting[count++].value = value;
    return SUCCESS;
}

/* For the test. */
int writes(void) { return count; }
void set_capture(unsigned status) { capture_status = status; }
void carry_out(int how_many)
{
    for (; how_many && carried_out < count; how_many--, carried_out++)
        __atomic_store_n(waiting[carried_out].at, waiting[carried_out].value, __ATOMIC_RELEASE);
}
