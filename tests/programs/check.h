/* What the test programs share: checking, and the numbers that they compute with. */
#ifndef VGPU_TEST_CHECK_H
#define VGPU_TEST_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAIL(...) do { fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); fprintf(stderr, __VA_ARGS__); \
    fputc('\n', stderr); exit(1); } while (0)
#define EXPECT(condition) do { if (!(condition)) FAIL("not so: %s", #condition); } while (0)

/* A small generator, so that inputs differ from element to element and are the same on every run. */
static uint32_t random_state = 12345;
static inline uint32_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}
/* -1 … 1 in steps that add and multiply exactly enough. */
static inline float random_float(void) { return (float)(int)(random_word() % 2001) / 1000.0f - 1.0f; }

static inline void *allocate(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p)
        FAIL("out of memory");
    return p;
}

/* The largest difference between what came back and what the CPU computes. */
static inline float matmul_error(const float *a, const float *b, const float *c, int n)
{
    float worst = 0;
    for (int row = 0; row < n; row++)
        for (int col = 0; col < n; col++) {
            double sum = 0;
            for (int k = 0; k < n; k++)
                sum += (double)a[row * n + k] * b[k * n + col];
            float difference = fabsf((float)sum - c[row * n + col]);
            if (!(difference <= worst))
                worst = difference;
        }
    return worst;
}

#endif
