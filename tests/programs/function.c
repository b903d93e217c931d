/*
 * The plain PCI function as a program sees it that maps its BARs, with no driver between them.
 *
 *   function DEVICE registers     what the registers say, and a request with and without an interrupt
 *   function DEVICE refusals      each error that a request alone brings about
 *   function DEVICE accesses      loads and stores of every width at every offset of BAR0, and all over BAR1
 *   function DEVICE pattern       leaves a pattern in BAR1
 *   function DEVICE address       CUDA's device is found by the function's address (with the kernel's driver)
 *   function DEVICE driven        what is refused while the kernel's driver has the device
 *   function DEVICE open          a session, until the test says so
 *   function DEVICE full          a session whose worker has no mappings left
 *   function DEVICE late          a session whose worker the test has stopped
 *   function DEVICE answer N      a session is refused with error N; the CUresult is told
 *   function DEVICE ending        a session is open when the daemon is asked to end: error 3, and then nobody answers
 *
 * DEVICE is the function's folder in sysfs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exercise.h"
#include "vgpu_layout.h"

#define PAGE 4096u
/* Where in BAR1 the session page of slot S is. */
#define PAGE_OF(slot) ((uint64_t)(slot) * PAGE)
#define GONE 0xffffffffu

static volatile uint8_t *bar0, *bar1;
static size_t bar1_bytes;

static volatile uint8_t *map(const char *device, int bar, size_t *bytes)
{
    char path[256];
    struct stat status;

    snprintf(path, sizeof(path), "%s/resource%d", device, bar);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0 || fstat(file, &status))
        FAIL("%s: %s", path, strerror(errno));
    void *at = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        FAIL("mmap of %s: %s", path, strerror(errno));
    close(file);
    *bytes = status.st_size;
    return at;
}

static uint32_t get(uint32_t offset) { return *(volatile uint32_t *)(bar0 + offset); }
static void set(uint32_t offset, uint32_t value) { *(volatile uint32_t *)(bar0 + offset) = value; }

/* What came of the last request. */
static struct { int was_busy; uint32_t status, error, cuda_result, len; uint8_t body[VGPU_MAILBOX_BYTES]; } last;

/* Rings, and waits until the request is done. */
static uint32_t ring(uint32_t len)
{
    double limit = seconds() + 60;

    memset(&last, 0, sizeof(last));
    set(VGPU_REQUEST_LEN, len);
    set(VGPU_DOORBELL, 1);
    while ((last.status = get(VGPU_STATUS)) == VGPU_STATUS_BUSY) {
        last.was_busy = 1;
        if (seconds() > limit)
            FAIL("no answer within a minute");
    }
    if (last.status == GONE)
        return GONE;
    EXPECT(last.status == VGPU_STATUS_DONE || last.status == VGPU_STATUS_ERROR);
    last.error = get(VGPU_ERROR_CODE);
    EXPECT((last.status == VGPU_STATUS_ERROR) == (last.error != VGPU_ERROR_NONE));
    last.len = get(VGPU_RESPONSE_LEN);
    if (last.len) {
        struct vgpu_reply_header reply;

        for (size_t i = 0; i < sizeof(reply); i++)
            ((uint8_t *)&reply)[i] = bar0[VGPU_OFF_MAILBOX_RESPONSE + i];
        EXPECT(reply.error == last.error && reply.len + sizeof(reply) == last.len);
        EXPECT(reply.request_id == get(VGPU_REQUEST_ID));
        last.cuda_result = reply.cuda_result;
        for (size_t i = 0; i < reply.len; i++)
            last.body[i] = bar0[VGPU_OFF_MAILBOX_RESPONSE + sizeof(reply) + i];
    }
    return last.error;
}

/* Sends a request: a header, a body and what follows it. */
static uint32_t ask(uint32_t kind, uint32_t slot, const void *body, size_t body_len, const void *rest, size_t rest_len)
{
    static uint32_t next_id;
    struct vgpu_request_header header = { .kind = kind, .request_id = ++next_id, .session = slot };
    uint64_t words[VGPU_MAILBOX_BYTES / 8] = { 0 };
    size_t len = sizeof(header) + body_len + rest_len;

    EXPECT(len <= sizeof(words));
    memcpy(words, &header, sizeof(header));
    memcpy((uint8_t *)words + sizeof(header), body, body_len);
    if (rest_len)
        memcpy((uint8_t *)words + sizeof(header) + body_len, rest, rest_len);
    for (size_t i = 0; i < (len + 7) / 8; i++)
        ((volatile uint64_t *)(bar0 + VGPU_OFF_MAILBOX_REQUEST))[i] = words[i];
    return ring(len);
}

static uint32_t read_regs(void) { return ask(VGPU_READ_REGS, 0, "", 0, NULL, 0); }

static void registers(void)
{
    EXPECT(get(VGPU_STATUS) == VGPU_STATUS_IDLE);
    EXPECT(get(VGPU_PROTOCOL_VER) == VGPU_ABI_VERSION && VGPU_PROTOCOL_VER == 0x20);
    EXPECT(get(VGPU_POOL_ID) == 'B' && get(VGPU_PRIORITY) == VGPU_PRIORITY_HIGH && get(VGPU_VM_ID) == 77);
    EXPECT(get(VGPU_CAPABILITIES) & VGPU_CAP_MAP_GUEST_PAGES);
    EXPECT(get(VGPU_DOORBELL) == 0 && get(VGPU_RESPONSE_LEN) == 0 && get(VGPU_REQUEST_ID) == 0);
    EXPECT(read_regs() == VGPU_ERROR_NONE && last.len == sizeof(struct vgpu_reply_header) + VGPU_BLOCK_BYTES);
    EXPECT(!memcmp(last.body + VGPU_MAGIC, VGPU_TAG, 8));
    EXPECT(get(VGPU_TIMESTAMP_LO) | get(VGPU_TIMESTAMP_HI));
    struct vgpu_read_info info = { .offset = 0, .len = 512 };
    EXPECT(ask(VGPU_READ_INFO, 0, &info, sizeof(info), NULL, 0) == VGPU_ERROR_NONE && last.len > 16);
    set(VGPU_SCRATCH, 0x12345678);
    EXPECT(get(VGPU_SCRATCH) == 0x12345678 && bar0[VGPU_SCRATCH] == 0x78);
    set(VGPU_IRQ_STATUS, ~0u);
    EXPECT(get(VGPU_IRQ_STATUS) == 0);
    set(VGPU_IRQ_CTRL, VGPU_IRQ_RESPONSE);
    EXPECT(read_regs() == VGPU_ERROR_NONE && get(VGPU_IRQ_STATUS) == VGPU_IRQ_RESPONSE);
    set(VGPU_IRQ_CTRL, 0);
}

static void refusals(void)
{
    struct vgpu_hello hello = { .abi_version = VGPU_ABI_VERSION };
    struct vgpu_session_ref none = { 0 };
    struct vgpu_open_session open = { .abi_version = VGPU_ABI_VERSION + 1, .page_gpa = PAGE };
    struct vgpu_open_session outside = { .abi_version = VGPU_ABI_VERSION, .page_gpa = bar1_bytes };

    EXPECT(ask(0xffff, 0, "", 0, NULL, 0) == VGPU_ERROR_INVALID_REQUEST);
    EXPECT(ask(VGPU_CLOSE_SESSION, 9, &none, sizeof(none), NULL, 0) == VGPU_ERROR_INVALID_REQUEST);
    EXPECT(ask(VGPU_OPEN_SESSION, 1, &outside, sizeof(outside), NULL, 0) == VGPU_ERROR_INVALID_REQUEST);
    EXPECT(ring(VGPU_MAILBOX_BYTES + 1) == VGPU_ERROR_TOO_LARGE && last.len == 0);
    EXPECT(ring(~0u) == VGPU_ERROR_TOO_LARGE);
    EXPECT(ask(VGPU_HELLO, 0, &hello, sizeof(hello), NULL, 0) == VGPU_ERROR_UNSUPPORTED);
    EXPECT(ask(VGPU_OPEN_SESSION, 1, &open, sizeof(open), NULL, 0) == VGPU_ERROR_UNSUPPORTED);
    EXPECT(ring(0) == VGPU_ERROR_INVALID_LENGTH);
    EXPECT(ask(VGPU_READ_REGS, 0, "12345678", 8, NULL, 0) == VGPU_ERROR_INVALID_LENGTH);
    EXPECT(read_regs() == VGPU_ERROR_NONE);
}

#define PLAY(type, bar, offset, value) do { volatile type *p_ = (volatile type *)((bar) + (offset)); \
    (void)*p_; *p_ = (type)(value); (void)*p_; } while (0)

static void play(volatile uint8_t *bar, size_t bytes, size_t offset, uint64_t value)
{
    if (offset + 1 <= bytes)
        PLAY(uint8_t, bar, offset, value);
    if (offset + 2 <= bytes)
        PLAY(uint16_t, bar, offset, value);
    if (offset + 4 <= bytes)
        PLAY(uint32_t, bar, offset, value);
    if (offset + 8 <= bytes)
        PLAY(uint64_t, bar, offset, value);
}

static void accesses(void)
{
    static const uint64_t values[] = { 0, 1, 0x5a5a5a5a5a5a5a5aull, ~0ull };

    for (size_t v = 0; v < 4; v++) {
        /* The registers, the edges of what lies behind them, and samples of the rest. */
        for (size_t at = 0; at < PAGE; at += at < 0x48 || (at > 0x430 && at < 0x450) || (at > 0x838 && at < 0x850) || at > 0xff0 ? 1 : 61)
            play(bar0, PAGE, at, values[v]);
        for (size_t at = 0; at < bar1_bytes; at += at % PAGE < 9 || at % PAGE > PAGE - 9 ? 1 : 1021)
            play(bar1, bar1_bytes, at, values[v]);
    }
    /* The last of them may still be under way. */
    while (get(VGPU_STATUS) == VGPU_STATUS_BUSY)
        ;
    EXPECT(read_regs() == VGPU_ERROR_NONE);
}

static void pattern(void)
{
    for (size_t at = 0; at < bar1_bytes; at += 8)
        *(volatile uint64_t *)(bar1 + at) = at * 0x9e3779b97f4a7c15ull;
}

static uint32_t open_session(uint32_t slot)
{
    struct vgpu_open_session open = { .abi_version = VGPU_ABI_VERSION, .pid = getpid(), .uid = getuid(), .page_gpa = PAGE_OF(slot) };
    uint32_t block = read_regs();

    EXPECT(block == VGPU_ERROR_NONE);
    memcpy(open.fingerprint, last.body + VGPU_TABLE_FINGERPRINT, sizeof(open.fingerprint));
    memset((void *)(bar1 + PAGE_OF(slot)), 0, PAGE);
    return ask(VGPU_OPEN_SESSION, slot, &open, sizeof(open), NULL, 0);
}

static uint32_t close_session(uint32_t slot)
{
    struct vgpu_session_ref none = { 0 };

    return ask(VGPU_CLOSE_SESSION, slot, &none, sizeof(none), NULL, 0);
}

static struct vgpu_session_page *page_of(uint32_t slot) { return (struct vgpu_session_page *)(bar1 + PAGE_OF(slot)); }

static void opened(uint32_t slot)
{
    uint32_t error = open_session(slot);

    if (error)
        FAIL("OPEN_SESSION: error %u", error);
    double limit = seconds() + 60;
    while (((volatile struct vgpu_session_page *)page_of(slot))->state != VGPU_SESSION_LIVE)
        if (seconds() > limit)
            FAIL("the session page says %u", page_of(slot)->state);
}

/* Says that it is so far, and waits until it is told to go on. */
static void wait_for_test(void)
{
    ready(0);
    while (!stopped())
        milliseconds_pass(5);
}

static void one_session(void)
{
    opened(2);
    EXPECT(open_session(2) == VGPU_ERROR_INVALID_REQUEST);
    wait_for_test();
    EXPECT(close_session(2) == VGPU_ERROR_NONE);
    EXPECT(close_session(2) == VGPU_ERROR_INVALID_REQUEST);
}

static void full(void)
{
    struct vgpu_run runs[56];
    struct vgpu_map_region map = { .region = 1, .va = VGPU_PINNED_WINDOW_START, .len = sizeof(runs) / sizeof(*runs) * PAGE,
                                   .run_count = sizeof(runs) / sizeof(*runs) };
    uint32_t error = 0;
    int messages = 0;

    opened(2);
    /* No two neighbours continue each other, so that each is a mapping. */
    for (size_t i = 0; i < map.run_count; i++)
        runs[i] = (struct vgpu_run){ .gpa = i % 2 ? 0 : 64 * PAGE, .len = PAGE };
    for (; !error && messages < 20000; messages++) {
        error = ask(VGPU_MAP_REGION, 2, &map, sizeof(map), runs, sizeof(runs));
        map.va += map.len;
    }
    printf("full after %d messages\n", messages);
    EXPECT(error == VGPU_ERROR_QUEUE_FULL);
    EXPECT(close_session(2) == VGPU_ERROR_NONE);
}

static void late(void)
{
    struct vgpu_add_ring_part part = { .ring = 0, .part = VGPU_PART_RING, .len = VGPU_RING_BYTES, .run_count = 1 };
    struct vgpu_run run = { .gpa = 256 * PAGE, .len = VGPU_RING_BYTES };

    opened(3);
    wait_for_test();
    EXPECT(ask(VGPU_ADD_RING_PART, 3, &part, sizeof(part), &run, sizeof(run)) == VGPU_ERROR_TIMEOUT);
    EXPECT(last.was_busy);
    EXPECT(close_session(3) == VGPU_ERROR_NONE);
}

static void answer(uint32_t wanted)
{
    uint32_t error = open_session(4);

    printf("error %u, CUresult %u\n", error, last.cuda_result);
    EXPECT(error == wanted && last.status == VGPU_STATUS_ERROR);
}

static void ending(void)
{
    double limit = seconds() + 60;
    uint32_t error;

    opened(5);
    wait_for_test();
    while ((error = open_session(6)) == VGPU_ERROR_NONE) {
        EXPECT(close_session(6) == VGPU_ERROR_NONE);
        EXPECT(seconds() < limit);
    }
    EXPECT(error == VGPU_ERROR_MEDIATOR_UNAVAILABLE);
    /* The session's page says it too. */
    while (((volatile struct vgpu_session_page *)page_of(5))->state != VGPU_SESSION_DEAD)
        EXPECT(seconds() < limit);
    while (get(VGPU_STATUS) != GONE)
        EXPECT(seconds() < limit);
}

static void driven(void)
{
    EXPECT(read_regs() == VGPU_ERROR_NONE);
    EXPECT(open_session(2) == VGPU_ERROR_UNSUPPORTED);
    set(VGPU_IRQ_CTRL, VGPU_IRQ_RESPONSE);
    for (int i = 0; i < 10; i++)
        EXPECT(read_regs() == VGPU_ERROR_NONE);
    set(VGPU_IRQ_CTRL, 0);
}

static void address(const char *folder)
{
    char text[32] = "", wanted[32];
    CUdevice found = -1;

    CHECK(cuInit(0));
    CHECK(cuDeviceGetPCIBusId(text, sizeof(text), 0));
    snprintf(wanted, sizeof(wanted), "%s", strrchr(folder, '/') + 1);
    if (strcasecmp(text, wanted))
        FAIL("CUDA says %s, the function is %s", text, wanted);
    CHECK(cuDeviceGetByPCIBusId(&found, wanted));
    EXPECT(found == 0);
}

int main(int argc, char **argv)
{
    size_t bytes;

    if (argc < 3)
        FAIL("which device, and what?");
    bar0 = map(argv[1], VGPU_BAR_MAILBOX, &bytes);
    EXPECT(bytes == VGPU_MAILBOX_BAR_BYTES);
    bar1 = map(argv[1], VGPU_BAR_DATA, &bar1_bytes);
    EXPECT(bar1_bytes >= VGPU_DATA_BAR_BYTES_MIN);
    const char *what = argv[2];
    if (!strcmp(what, "registers"))
        registers();
    else if (!strcmp(what, "refusals"))
        refusals();
    else if (!strcmp(what, "accesses"))
        accesses();
    else if (!strcmp(what, "pattern"))
        pattern();
    else if (!strcmp(what, "address"))
        address(argv[1]);
    else if (!strcmp(what, "driven"))
        driven();
    else if (!strcmp(what, "open"))
        one_session();
    else if (!strcmp(what, "full"))
        full();
    else if (!strcmp(what, "late"))
        late();
    else if (!strcmp(what, "answer") && argc == 4)
        answer(atoi(argv[3]));
    else if (!strcmp(what, "ending"))
        ending();
    else
        FAIL("%s?", what);
    printf("%s: all right\n", what);
    return 0;
}
