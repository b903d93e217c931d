/*
 * Runs a model with a prebuilt llama.cpp (release b7347), through its C interface: greedy tokens for a few prompts, with flash attention
 * and without, and how fast they come. Facts are also what its CUDA back end says of itself, and how often it launched a graph and
 * created memory of its pool: it must be there, and do both, or the program fails.
 *
 *   llama_run FOLDER-OF-LIBRARIES MODEL [cpu]
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * The beginnings of structures that are passed by value, which is to say in memory: that they are longer than the library's does no
 * harm. `check` compares what is in them with what the library's defaults are known to be.
 */
struct model_parameters {
    void *devices, *overrides;
    int32_t gpu_layers;
    char rest[1004];
};
struct context_parameters {
    uint32_t context, batch, micro_batch, sequences;
    int32_t threads, batch_threads, rope_scaling, pooling, attention, flash_attention;
    char rest[984];
};
struct batch {
    int32_t count;
    int32_t *token;
    float *embedding;
    int32_t *position, *sequences, **sequence;
    int8_t *logits;
};
struct feature { const char *name, *value; };

enum { CONTEXT = 512, LONG = 300, TOKENS = 48, STEPS = 128, PREFILLS = 8 };

static void *ggml, *llama;
static int on_gpu = 1;
static long graphs, pool_blocks;

static void fail(const char *what, const char *why)
{
    printf("failed: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    exit(1);
}

static void *find(const char *name)
{
    void *f = dlsym(llama, name);
    if (!f && !(f = dlsym(ggml, name)))
        fail("llama.cpp has no", name);
    return f;
}

/* What the two functions below stand before. */
static void *behind(const char *file, const char *name)
{
    void *library = dlopen(file, RTLD_LAZY | RTLD_NOLOAD), *f = library ? dlsym(library, name) : 0;
    if (!f)
        fail(file, name);
    return f;
}

/* The back end's calls of these two come by here, since the program's own names are found before those of the libraries. */
int cudaGraphLaunch(void *graph, void *stream)
{
    static int (*f)(void *, void *);
    if (!f)
        f = behind("libcudart.so.13", "cudaGraphLaunch");
    graphs++;
    return f(graph, stream);
}

int cuMemCreate(uint64_t *handle, size_t bytes, const void *properties, unsigned long long flags)
{
    static int (*f)(uint64_t *, size_t, const void *, unsigned long long);
    if (!f)
        f = behind("libcuda.so.1", "cuMemCreate");
    pool_blocks++;
    return f(handle, bytes, properties, flags);
}

/* Opens the one file of the folder whose name begins so. */
static void *open_by_start(const char *folder, const char *start, int flags)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char path[4096];
    void *found = 0;
    while (d && (e = readdir(d)))
        if (!strncmp(e->d_name, start, strlen(start))) {
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            if (!(found = dlopen(path, RTLD_NOW | flags)))
                fail("a library does not load", dlerror());
        }
    if (d)
        closedir(d);
    if (!found)
        fail("there is no", start);
    return found;
}

/* Which files were taken: one that had the native driver library says nothing of ours. */
static void note_libraries(void)
{
    char line[4096], *path, last[4096] = "";
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if ((path = strchr(line, '/')) && strstr(path, "/libcu") && strcmp(path, last)) {
            printf("note: %s", path);
            strcpy(last, path);
        }
    if (maps)
        fclose(maps);
}

/* What the library says, and of that as facts what says where and how the model runs. */
static void said(int level, const char *text, void *data)
{
    static const char *const facts[] = {"VMM: ", "flash_attn ", "offloaded ", "Flash Attention"};
    (void)level, (void)data;
    fputs(text, stderr);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (strstr(text, facts[i])) {
            printf("says: %.*s\n", (int)strcspn(text, "\n"), text);
            return;
        }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void devices(void)
{
    size_t count = ((size_t (*)(void))find("ggml_backend_dev_count"))();
    const char *(*name)(void *) = find("ggml_backend_dev_name"), *(*about)(void *) = find("ggml_backend_dev_description");
    void *(*device)(size_t) = find("ggml_backend_dev_get"), *(*registry)(void *) = find("ggml_backend_dev_backend_reg");
    void *(*function)(void *, const char *) = find("ggml_backend_reg_get_proc_address");
    int found = 0, graphs_built = 0;
    for (size_t i = 0; i < count; i++) {
        void *d = device(i);
        printf("device %s: %s\n", name(d), strncmp(name(d), "CUDA", 4) ? "the processor" : about(d));
        if (strncmp(name(d), "CUDA", 4))
            continue;
        found = 1;
        struct feature *(*features)(void *) = function(registry(d), "ggml_backend_get_features");
        for (struct feature *f = features ? features(registry(d)) : 0; f && f->name; f++) {
            printf("feature: %s = %s\n", f->name, f->value);
            graphs_built |= !strcmp(f->name, "USE_GRAPHS") && !strcmp(f->value, "1");
        }
    }
    if (on_gpu && !found)
        fail("no device but the processor", 0);
    if (on_gpu && !graphs_built)
        fail("built without CUDA graphs", 0);
}

static void *model, *context;
static int size;

static void open_context(int flash)
{
    struct context_parameters c = ((struct context_parameters (*)(void))find("llama_context_default_params"))();
    if (c.context != 512 || c.batch != 2048 || c.micro_batch != 512 || c.sequences != 1 || c.rope_scaling != -1 || c.pooling != -1 ||
        c.attention != -1 || c.flash_attention != -1)
        fail("the parameters of a context are others", 0);
    c.context = CONTEXT;
    c.flash_attention = flash;
    /* What is left to the processor is little, and its threads spin. */
    c.threads = c.batch_threads = 1;
    context = ((void *(*)(void *, struct context_parameters))find("llama_init_from_model"))(model, c);
    if (!context)
        fail("no context", 0);
}

static void close_context(void)
{
    ((void (*)(void *))find("llama_free"))(context);
}

static void forget(void)
{
    ((void (*)(void *, int))find("llama_memory_clear"))(((void *(*)(void *))find("llama_get_memory"))(context), 1);
}

/* Decodes tokens and answers the likeliest next one; the logits go into `sum`. */
static int32_t next_of(int32_t *tokens, int count, uint64_t *sum)
{
    static int (*decode)(void *, struct batch);
    static struct batch (*one)(int32_t *, int32_t);
    static float *(*logits)(void *, int32_t);
    if (!decode) {
        decode = find("llama_decode");
        one = find("llama_batch_get_one");
        logits = find("llama_get_logits_ith");
    }
    int result = decode(context, one(tokens, count));
    float *l = result ? 0 : logits(context, -1);
    if (!l)
        fail("llama_decode", 0);
    int32_t best = 0;
    for (int i = 0; i < size; i++) {
        uint32_t word;
        if (!isfinite(l[i]))
            fail("a logit is no number", 0);
        memcpy(&word, &l[i], 4);
        if (sum)
            *sum = (*sum ^ word) * 0x100000001b3u;
        if (l[i] > l[best])
            best = i;
    }
    return best;
}

static int tokens_of(const char *text, int32_t *tokens, int most)
{
    void *vocabulary = ((void *(*)(void *))find("llama_model_get_vocab"))(model);
    int (*tokenize)(void *, const char *, int32_t, int32_t *, int32_t, _Bool, _Bool) = find("llama_tokenize");
    int count = tokenize(vocabulary, text, (int)strlen(text), tokens, most, 1, 0);
    if (count <= 0)
        fail("the prompt is too long", 0);
    return count;
}

static void generate(const char *name, const char *text)
{
    int32_t prompt[CONTEXT], made[TOKENS];
    int count = tokens_of(text, prompt, CONTEXT);
    uint64_t sum = 0xcbf29ce484222325u;
    forget();
    made[0] = next_of(prompt, count, &sum);
    printf("%s: a prompt of %d tokens, logits %016llx\n", name, count, (unsigned long long)sum);
    for (int i = 1; i < TOKENS; i++)
        made[i] = next_of(&made[i - 1], 1, &sum);
    printf("%s:", name);
    for (int i = 0; i < TOKENS; i++)
        printf(" %d", (int)made[i]);
    printf("\n%s: logits %016llx\n", name, (unsigned long long)sum);
}

static const char *long_text(void)
{
    static char text[LONG + 1];
    for (int i = 0; i < LONG; i++)
        text[i] = (char)('!' + (i * 37 + i / 11) % 90);
    return text;
}

static void measure(void)
{
    int32_t prompt[CONTEXT], next = 0;
    int count = tokens_of(long_text(), prompt, CONTEXT);
    double begin = now();
    for (int i = 0; i < PREFILLS; i++) {
        forget();
        next_of(prompt, count, 0);
    }
    printf("time: llama.cpp, a small model, prompt\t%.6g\ttokens/s\n", PREFILLS * count / (now() - begin));
    forget();
    for (int i = 0; i < 8; i++)
        next = next_of(&next, 1, 0);
    begin = now();
    for (int i = 0; i < STEPS; i++)
        next = next_of(&next, 1, 0);
    printf("time: llama.cpp, a small model, tokens\t%.6g\ttokens/s\n", STEPS / (now() - begin));
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    on_gpu = argc < 4 || strcmp(argv[3], "cpu");
    setvbuf(stdout, 0, _IOLBF, 0);
    ggml = open_by_start(argv[1], "libggml.", RTLD_GLOBAL);
    llama = open_by_start(argv[1], "libllama.", RTLD_GLOBAL);
    ((void (*)(void *, void *))find("llama_log_set"))(said, 0);
    if (on_gpu) {
        /* Looked for here first: what the library itself cannot load, it leaves out without a word. */
        open_by_start(argv[1], "libggml-cuda", RTLD_LOCAL);
        ((void (*)(const char *))find("ggml_backend_load_all_from_path"))(argv[1]);
    } else {
        char path[4096];
        void *(*load)(const char *) = find("ggml_backend_load"), *loaded = 0;
        for (int i = 0; i < 2 && !loaded; i++) {
            snprintf(path, sizeof path, "%s/libggml-cpu-%s.so", argv[1], i ? "x64" : "haswell");
            loaded = load(path);
        }
        if (!loaded)
            fail("a library does not load", path);
    }
    note_libraries();
    devices();
    ((void (*)(void))find("llama_backend_init"))();
    struct model_parameters p = ((struct model_parameters (*)(void))find("llama_model_default_params"))();
    if (p.devices || p.overrides || p.gpu_layers != 999)
        fail("the parameters of a model are others", 0);
    if (!on_gpu)
        p.gpu_layers = 0;
    model = ((void *(*)(const char *, struct model_parameters))find("llama_model_load_from_file"))(argv[2], p);
    if (!model)
        fail("the model does not load", 0);
    size = ((int (*)(void *))find("llama_vocab_n_tokens"))(((void *(*)(void *))find("llama_model_get_vocab"))(model));
    printf("vocabulary %d\n", size);
    for (int flash = 1; flash >= 0; flash--) {
        long graphs_before = graphs;
        printf("flash attention %s\n", flash ? "on" : "off");
        open_context(flash);
        generate("short", "Hello");
        generate("sentence", "The quick brown fox jumps over the lazy dog.");
        generate("long", long_text());
        printf("graphs launched: %ld\n", graphs - graphs_before);
        close_context();
    }
    printf("blocks of the pool: %ld\n", pool_blocks);
    if (on_gpu && !graphs)
        fail("no CUDA graph was launched", 0);
    if (on_gpu && !pool_blocks)
        fail("the pool has no memory by cuMemCreate", 0);
    if (on_gpu) {
        open_context(1);
        measure();
        close_context();
    }
    ((void (*)(void *))find("llama_model_free"))(model);
    printf("done\n");
    return 0;
}
