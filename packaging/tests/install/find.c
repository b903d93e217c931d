/* Finds libcuda and NVML as programs do: by soname, by either name, by full path, with RTLD_LOCAL, and asks cuInit. */
#include <dlfcn.h>
#include <stdio.h>

static int cuda(const char *name, int flags)
{
	void *library = dlopen(name, flags);
	int (*init)(unsigned) = library ? (int (*)(unsigned))dlsym(library, "cuInit") : NULL;
	int result = init ? init(0) : -1;

	printf("%s: cuInit %d%s%s\n", name, result, library ? "" : " ", library ? "" : dlerror());
	return result;
}

static int nvml(const char *name, int flags)
{
	void *library = dlopen(name, flags);
	int (*init)(void) = library ? (int (*)(void))dlsym(library, "nvmlInit_v2") : NULL;
	int result = init ? init() : -1;

	printf("%s: nvmlInit_v2 %d%s%s\n", name, result, library ? "" : " ", library ? "" : dlerror());
	return result;
}

int main(void)
{
	int failed = cuda("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) | cuda("libcuda.so", RTLD_LAZY | RTLD_GLOBAL) |
		     cuda("/usr/lib/x86_64-linux-gnu/libcuda.so.1", RTLD_NOW) |
		     nvml("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL) | nvml("libnvidia-ml.so", RTLD_LAZY) |
		     nvml("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", RTLD_NOW);

	puts(failed ? "something is missing" : "all found");
	return failed != 0;
}
