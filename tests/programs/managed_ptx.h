/* Two managed variables and a kernel that uses them: NVRTC, which makes the other kernels, is not asked for these. */
#ifndef VGPU_TEST_MANAGED_PTX_H
#define VGPU_TEST_MANAGED_PTX_H

static const char managed_ptx[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .global .attribute(.managed) .align 4 .u32 word = 41;\n"
    ".visible .global .attribute(.managed) .align 4 .b32 row[100000];\n"
    /* word += 1, row[thread] += word */
    ".visible .entry step()\n"
    "{\n"
    "    .reg .b32 %r<5>;\n"
    "    .reg .b64 %d<4>;\n"
    "    mov.u32 %r1, %tid.x;\n"
    "    ld.global.u32 %r2, [word];\n"
    "    mul.wide.u32 %d1, %r1, 4;\n"
    "    mov.u64 %d2, row;\n"
    "    add.u64 %d3, %d1, %d2;\n"
    "    ld.global.u32 %r3, [%d3];\n"
    "    add.u32 %r4, %r3, %r2;\n"
    "    st.global.u32 [%d3], %r4;\n"
    "    bar.sync 0;\n"
    "    add.u32 %r2, %r2, 1;\n"
    "    st.global.u32 [word], %r2;\n"
    "    ret;\n"
    "}\n";

#endif
