/*
 * Images that are none, and what is asked of them: modules refuse them at once, libraries when something in them is asked for.
 */
#include "parity.h"

static const char garbage[64] __attribute__((aligned(8))) = {'n', 'o', 'n', 's', 'e', 'n', 's', 'e', '\n'};
static const char empty[8] __attribute__((aligned(8))) = "";
static const char elf[64] __attribute__((aligned(8))) = {0x7f, 'E', 'L', 'F', 2, 1, 1};
static const char fat[64] __attribute__((aligned(8))) = {0x50, (char)0xed, 0x55, (char)0xba, 1, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0};
static const char *const ptx[] = {
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { no.such.instruction; }\n",
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { ret;\n",
    ".version 99.0\n.target sm_80\n.address_size 64\n.visible .entry f() { ret; }\n",
    ".version 8.0\n.target sm_999\n.address_size 64\n.visible .entry f() { ret; }\n",
    ".version 8.0\n.target sm_80\n.address_size 64\n.extern .func g();\n.visible .entry f() { call g; ret; }\n",
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { ret; }\n",
    ".version 8.0\n.target sm_80\n.address_size 64\n",
    ".version 8.0\n",
    "\n",
    "// nothing\n",
    ".version 8.0\n.target sm_100a\n.address_size 64\n.visible .entry f() { ret; }\n",
};

static void one(const char *what, const void *image)
{
    CUmodule m = 0;
    CUlibrary lib = 0;
    CUkernel k = 0;
    CUfunction f = 0;
    CUdeviceptr p = 0;
    size_t size = 0;
    unsigned n = 77;
    CUresult r = cuModuleLoadData(&m, image);
    FACT("%s: cuModuleLoadData %d", what, (int)r);
    if (!r) {
        r = cuModuleGetFunction(&f, m, "f");
        FACT("%s: cuModuleGetFunction %d", what, (int)r);
        n = 77;
        r = cuModuleGetFunctionCount(&n, m);
        FACT("%s: cuModuleGetFunctionCount %d %u", what, (int)r, n);
        cuModuleUnload(m);
    }
    r = cuModuleLoadFatBinary(&m, image);
    FACT("%s: cuModuleLoadFatBinary %d", what, (int)r);
    if (!r)
        cuModuleUnload(m);
    r = cuLibraryLoadData(&lib, image, 0, 0, 0, 0, 0, 0);
    FACT("%s: cuLibraryLoadData %d %s", what, (int)r, lib ? "given" : "NULL");
    if (r)
        return;
    n = 77;
    r = cuLibraryGetKernelCount(&n, lib);
    FACT("%s: cuLibraryGetKernelCount %d %u", what, (int)r, n);
    r = cuLibraryEnumerateKernels(&k, 1, lib);
    FACT("%s: cuLibraryEnumerateKernels %d %s", what, (int)r, k ? "given" : "NULL");
    k = 0;
    r = cuLibraryGetKernel(&k, lib, "f");
    FACT("%s: cuLibraryGetKernel %d", what, (int)r);
    if (!r) {
        r = cuKernelGetFunction(&f, k);
        FACT("%s: cuKernelGetFunction %d", what, (int)r);
        int value = -1;
        r = cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, k, device);
        FACT("%s: cuKernelGetAttribute %d", what, (int)r);
        r = cuLaunchKernel((CUfunction)k, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0);
        FACT("%s: cuLaunchKernel %d", what, (int)r);
    }
    r = cuLibraryGetKernel(&k, lib, "none");
    FACT("%s: cuLibraryGetKernel of none %d", what, (int)r);
    r = cuLibraryGetModule(&m, lib);
    FACT("%s: cuLibraryGetModule %d", what, (int)r);
    r = cuLibraryGetGlobal(&p, &size, lib, "x");
    FACT("%s: cuLibraryGetGlobal %d", what, (int)r);
    r = cuLibraryGetManaged(&p, &size, lib, "x");
    FACT("%s: cuLibraryGetManaged %d", what, (int)r);
    void *shared = 0;
    r = cuLibraryGetUnifiedFunction(&shared, lib, "x");
    FACT("%s: cuLibraryGetUnifiedFunction %d", what, (int)r);
    r = cuLibraryUnload(lib);
    FACT("%s: cuLibraryUnload %d", what, (int)r);
}

LONELY(image_garbage) { one("garbage", garbage); }
LONELY(image_empty) { one("empty", empty); }
LONELY(image_elf) { one("elf", elf); }
LONELY(image_fat) { one("fat", fat); }
CASE(image_ptx)
{
    for (unsigned i = 0; i < sizeof ptx / sizeof *ptx; i++) {
        char what[30];
        snprintf(what, sizeof what, "ptx %u", i);
        one(what, ptx[i]);
    }
}
CASE(image_good) { one("kernels", kernels_ptx); }
