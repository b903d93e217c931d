/*
 * Runs a model with a prebuilt llama.cpp, through the few functions of its C interface that keep their shape: parameters come as what
 * the library calls its defaults (every layer on the GPU), in structures whose inside is not looked at.
 *
 *   llama_run FOLDER-OF-LIBRARIES MODEL
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Larger than either structure of parameters: returned in memory and passed in memory, it stands for both. */
struct parameters { char bytes[1024]; };
struct batch {
    int32_t count;
    int32_t *token;
    float *embedding;
    int32_t *position, *sequences, **sequence;
    int8_t *logits;
};

static void *library;

static void *find(const char *name)
{
    void *f = dlsym(library, name);
    if (!f) {
        printf("llama.cpp has no %s\n", name);
        exit(77);
    }
    return f;
}

/* Opens the one file of the folder whose name begins so. */
static void *open_by_start(const char *folder, const char *start)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char path[4096];
    void *found = 0;
    while (d && (e = readdir(d)))
        if (!strncmp(e->d_name, start, strlen(start))) {
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            if (!(found = dlopen(path, RTLD_NOW | RTLD_GLOBAL)))
                printf("%s\n", dlerror());
        }
    if (d)
        closedir(d);
    return found;
}

static void to_stderr(int level, const char *text, void *data)
{
    (void)level, (void)data;
    fputs(text, stderr);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    void *ggml = open_by_start(argv[1], "libggml.");
    library = open_by_start(argv[1], "libllama.");
    if (!ggml || !library)
        return 77;
    ((void (*)(void *, void *))find("llama_log_set"))(to_stderr, 0);
    ((void (*)(const char *))find("ggml_backend_load_all_from_path"))(argv[1]);
    size_t devices = ((size_t (*)(void))find("ggml_backend_dev_count"))();
    const char *(*name)(void *) = find("ggml_backend_dev_name"), *(*about)(void *) = find("ggml_backend_dev_description");
    void *(*device)(size_t) = find("ggml_backend_dev_get");
    int gpu = 0;
    for (size_t i = 0; i < devices; i++) {
        if (strncmp(name(device(i)), "CUDA", 4))
            continue;
        printf("device %s: %s\n", name(device(i)), about(device(i)));
        gpu = 1;
    }
    if (!gpu)
        printf("no device but the processor\n");
    ((void (*)(void))find("llama_backend_init"))();
    struct parameters p = ((struct parameters (*)(void))find("llama_model_default_params"))();
    void *model = ((void *(*)(const char *, struct parameters))find("llama_model_load_from_file"))(argv[2], p);
    if (!model) {
        printf("the model does not load\n");
        return 1;
    }
    struct parameters c = ((struct parameters (*)(void))find("llama_context_default_params"))();
    void *context = ((void *(*)(void *, struct parameters))find("llama_init_from_model"))(model, c);
    if (!context) {
        printf("no context\n");
        return 1;
    }
    int (*vocabulary)(void *) = find("llama_vocab_n_tokens");
    int size = vocabulary(((void *(*)(void *))find("llama_model_get_vocab"))(model));
    int (*decode)(void *, struct batch) = find("llama_decode");
    struct batch (*one)(int32_t *, int32_t) = find("llama_batch_get_one");
    float *(*logits)(void *, int32_t) = find("llama_get_logits_ith");
    int32_t prompt[32], next = 0;
    for (int i = 0; i < 32; i++)
        prompt[i] = (i * 37 + 5) % size;
    printf("vocabulary %d\n", size);
    double begin = 0;
    enum { STEPS = 128 };
    for (int step = 0; step <= STEPS; step++) {
        if (decode(context, step ? one(&next, 1) : one(prompt, 32))) {
            printf("step %d failed\n", step);
            return 1;
        }
        float *l = logits(context, -1);
        uint64_t sum = 0xcbf29ce484222325u;
        for (int i = 0; i < size; i++) {
            uint32_t word;
            memcpy(&word, &l[i], 4);
            sum = (sum ^ word) * 0x100000001b3u;
        }
        next = 0;
        for (int i = 1; i < size; i++)
            if (l[i] > l[next])
                next = i;
        if (step % 8 == 0)
            printf("step %d: token %d, logits %016llx\n", step, (int)next, (unsigned long long)sum);
        if (!step)
            begin = now();
    }
    printf("time: llama.cpp, a small model, tokens\t%.6g\ttokens/s\n", STEPS / (now() - begin));
    fflush(stdout);
    ((void (*)(void *))find("llama_free"))(context);
    ((void (*)(void *))find("llama_model_free"))(model);
    return gpu ? 0 : 1;
}
