/*
 * Every call that takes a device address, with addresses that are not this process's: refused at once, with 1.
 *
 * First those around an allocation of its own. Then it says that it is ready, and takes more from the file $VGPU_STOP: words in
 * hexadecimal, at last "end".
 *
 * Prints `call NAME` for every call that it made.
 */
#include "exercise.h"

enum { BYTES = 4096 };

static char host[2 * BYTES];
static CUdeviceptr good;
static CUstream stream;

struct place {
    const char *what;
    CUdeviceptr at;
    size_t len;
};

static const struct place *now;

static void refused(CUresult result, const char *call)
{
    if (result != CUDA_ERROR_INVALID_VALUE)
        FAIL("%s at %s (%#llx, %zu bytes) answers %d", call, now->what, (unsigned long long)now->at, now->len, result);
}
#define REFUSED(name, call) do { if (!listed) printf("call %s\n", name); refused(call, name); } while (0)

/* Whole calls: their length is the place's. */
static void ranged(const struct place *place, int listed)
{
    CUdeviceptr p = place->at;
    size_t len = place->len;
    now = place;
    REFUSED("cuMemcpyHtoD_v2", cuMemcpyHtoD(p, host, len));
    REFUSED("cuMemcpyDtoH_v2", cuMemcpyDtoH(host, p, len));
    REFUSED("cuMemcpyDtoD_v2", cuMemcpyDtoD(p, good, len));
    REFUSED("cuMemcpyDtoD_v2", cuMemcpyDtoD(good, p, len));
    REFUSED("cuMemcpyHtoDAsync_v2", cuMemcpyHtoDAsync(p, host, len, stream));
    REFUSED("cuMemcpyDtoHAsync_v2", cuMemcpyDtoHAsync(host, p, len, stream));
    REFUSED("cuMemcpyDtoDAsync_v2", cuMemcpyDtoDAsync(p, good, len, stream));
    REFUSED("cuMemcpyDtoDAsync_v2", cuMemcpyDtoDAsync(good, p, len, stream));
    REFUSED("cuMemsetD8_v2", cuMemsetD8(p, 0, len));
    REFUSED("cuMemsetD8Async", cuMemsetD8Async(p, 0, len, stream));
    REFUSED("cuMemsetD2D8_v2", cuMemsetD2D8(p, len, 0, len, 1));
    REFUSED("cuMemsetD2D8Async", cuMemsetD2D8Async(p, len, 0, len, 1, stream));
    size_t halves = len / 2 + len % 2, words = len / 4 + (len % 4 != 0);
    REFUSED("cuMemsetD16_v2", cuMemsetD16(p, 0, halves));
    REFUSED("cuMemsetD16Async", cuMemsetD16Async(p, 0, halves, stream));
    REFUSED("cuMemsetD2D16_v2", cuMemsetD2D16(p, halves * 2, 0, halves, 1));
    REFUSED("cuMemsetD2D16Async", cuMemsetD2D16Async(p, halves * 2, 0, halves, 1, stream));
    REFUSED("cuMemsetD32_v2", cuMemsetD32(p, 0, words));
    REFUSED("cuMemsetD32Async", cuMemsetD32Async(p, 0, words, stream));
    REFUSED("cuMemsetD2D32_v2", cuMemsetD2D32(p, words * 4, 0, words, 1));
    REFUSED("cuMemsetD2D32Async", cuMemsetD2D32Async(p, words * 4, 0, words, 1, stream));
}

/* Calls on one word at the place. */
static void words(const struct place *place, int listed)
{
    CUdeviceptr p = place->at;
    now = place;
    REFUSED("cuStreamWriteValue32_v2", cuStreamWriteValue32(stream, p, 0, 0));
    REFUSED("cuStreamWriteValue64_v2", cuStreamWriteValue64(stream, p, 0, 0));
    REFUSED("cuStreamWaitValue32_v2", cuStreamWaitValue32(stream, p, 0, 0));
    REFUSED("cuStreamWaitValue64_v2", cuStreamWaitValue64(stream, p, 0, 0));
}

/* Addresses that the test knows to be the host's. */
static int foreign_addresses(void)
{
    char word[100];
    int found = 0, whole = 0;
    ready(0);
    while (!whole) {
        FILE *file = stopped() ? fopen(getenv("VGPU_STOP"), "r") : 0;
        milliseconds_pass(10);
        if (!file)
            continue;
        /* The file may still be short: then it is read again. */
        for (found = 0; fscanf(file, "%99s", word) == 1 && !whole; found++) {
            struct place foreign = {"an address of the worker's", strtoull(word, 0, 16), 64};
            whole = !strcmp(word, "end");
            if (whole)
                break;
            ranged(&foreign, 1);
            words(&foreign, 1);
        }
        fclose(file);
    }
    return found;
}

int main(void)
{
    CUdeviceptr gone;
    alarm(60);
    begin();
    CHECK(cuStreamCreate(&stream, 0));
    CHECK(cuMemAlloc(&gone, 2 * BYTES));
    CHECK(cuMemAlloc(&good, BYTES));
    CHECK(cuMemsetD8(good, 0x5a, BYTES));
    CHECK(cuMemFree(gone));

    struct place outside[] = {
        {"NULL", 0, 16},
        {"its end", good + BYTES, 16},
        {"its last byte and one more", good + BYTES - 1, 2},
        {"the byte before it and its first", good - 1, 2},
        {"freed memory", gone, 16},
        {"the last bytes of all", ~0ull - 7, 8},
        {"the last byte of all", ~0ull, 16},
        {"the host's own memory", (CUdeviceptr)(uintptr_t)host, 16},
    };
    for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
        ranged(&outside[i], i > 0);
        words(&outside[i], i > 0);
    }
    struct place too_long[] = {
        {"all of it and one byte", good, BYTES + 1},
        {"twice its length", good + 16, 2 * BYTES},
        {"more than there is", good, ~(size_t)0},
        {"around the end of the address space", good, (size_t)0 - good + 32},
        {"half of the address space", good, (size_t)1 << 63},
    };
    for (unsigned i = 0; i < sizeof too_long / sizeof *too_long; i++)
        ranged(&too_long[i], 1);

    /* The word's second half lies outside. */
    struct place half = {"a word half outside", good + BYTES - 4, 8};
    int listed = 1;
    now = &half;
    REFUSED("cuStreamWriteValue64", cuStreamWriteValue64(stream, half.at, 0, 0));
    REFUSED("cuStreamWaitValue64", cuStreamWaitValue64(stream, half.at, 0, 0));
    /* Products and sums that do not fit into 64 bits. */
    struct place product = {"an extent of more than 64 bits", good, 0};
    now = &product;
    REFUSED("cuMemsetD16", cuMemsetD16(good, 0, ((size_t)1 << 63) + 8));
    REFUSED("cuMemsetD32", cuMemsetD32(good, 0, ((size_t)1 << 62) + 8));
    REFUSED("cuMemsetD32Async", cuMemsetD32Async(good, 0, ((size_t)1 << 62) + 8, stream));
    REFUSED("cuMemsetD2D8", cuMemsetD2D8(good, (size_t)1 << 32, 0, 8, ((size_t)1 << 32) + 1));
    REFUSED("cuMemsetD2D16", cuMemsetD2D16(good, (size_t)1 << 63, 0, 8, 3));
    REFUSED("cuMemsetD2D32", cuMemsetD2D32(good, 64, 0, ((size_t)1 << 62) + 4, 1));
    REFUSED("cuMemsetD2D32Async", cuMemsetD2D32Async(good, (size_t)1 << 61, 0, 4, 9, stream));
    /* One end says that it is the device's; the other reaches out. */
    REFUSED("cuMemcpy", cuMemcpy(good, (CUdeviceptr)(uintptr_t)host, BYTES + 1));
    REFUSED("cuMemcpy", cuMemcpy((CUdeviceptr)(uintptr_t)host, good, BYTES + 1));
    REFUSED("cuMemcpyAsync", cuMemcpyAsync(good + 1, good, BYTES, stream));
    /* What is not the start of an allocation is not freed. */
    REFUSED("cuMemFree", cuMemFree(good + 8));
    REFUSED("cuMemFree", cuMemFree(gone));
    REFUSED("cuMemFreeHost", cuMemFreeHost(host));
    REFUSED("cuMemFreeHost", cuMemFreeHost((void *)(uintptr_t)good));

    printf("%d foreign addresses\n", foreign_addresses());

    /* None of it did anything, and the right calls work. */
    CHECK(cuMemcpyDtoH(host, good, BYTES));
    for (int i = 0; i < BYTES; i++)
        EXPECT(host[i] == 0x5a);
    CHECK(cuMemsetD8(good + BYTES - 1, 1, 1));
    CHECK(cuMemcpyDtoD(good, good + BYTES - 16, 16));
    CHECK(cuStreamWriteValue64(stream, good + BYTES - 8, 7, 0));
    CHECK(cuStreamWaitValue64(stream, good + BYTES - 8, 7, CU_STREAM_WAIT_VALUE_EQ));
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuMemcpyDtoH(host, good, BYTES));
    EXPECT(host[15] == 1 && host[BYTES - 8] == 7);
    CHECK(cuCtxSynchronize());
    printf("addresses: right\n");
    return 0;
}
