/*
 * Looks for a GPU by the steps of Ollama, in the order and with the symbols of its releases:
 *
 *   old   up to 0.12: in one process, the library by a list of patterns, a context, the memory that is free
 *   new   a process of its own: the library by its soname, the device's numbers and PCI address, NVML's driver version
 *   all   what a start is: both, each for itself, then several at once with CUDA_VISIBLE_DEVICES set to the device found
 *
 * Says what it finds, a line each; ends with 0 if that would have been taken for a GPU.
 */
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARALLEL 6

static const char *const patterns[] = {
	"/usr/local/cuda*/targets/*/lib/libcuda.so*", "/usr/lib/*-linux-gnu/nvidia/current/libcuda.so*",
	"/usr/lib/*-linux-gnu/libcuda.so*", "/usr/lib/wsl/lib/libcuda.so*", "/opt/cuda/lib*/libcuda.so*",
	"/usr/local/cuda/lib*/libcuda.so*", "/usr/lib*/libcuda.so*", "/usr/local/lib*/libcuda.so*",
};

static void *library;

static void *symbol(const char *name)
{
	void *found = dlsym(library, name);

	if (!found) {
		printf("no symbol %s\n", name);
		exit(1);
	}
	return found;
}

static void check(const char *what, int result)
{
	if (result) {
		printf("%s: %d\n", what, result);
		exit(1);
	}
}

/* What both ask of the first device. */
static int describe(const char *way, char *name, int *capability)
{
	int version, count, device, major, minor;

	check("cuInit", ((int (*)(unsigned))symbol("cuInit"))(0));
	check("cuDriverGetVersion", ((int (*)(int *))symbol("cuDriverGetVersion"))(&version));
	check("cuDeviceGetCount", ((int (*)(int *))symbol("cuDeviceGetCount"))(&count));
	if (count < 1 || version < 12000) {
		printf("%s: %d device(s), driver %d\n", way, count, version);
		exit(1);
	}
	check("cuDeviceGet", ((int (*)(int *, int))symbol("cuDeviceGet"))(&device, 0));
	int (*attribute)(int *, int, int) = symbol("cuDeviceGetAttribute");
	check("major", attribute(&major, 75, device));
	check("minor", attribute(&minor, 76, device));
	check("cuDeviceGetName", ((int (*)(char *, int, int))symbol("cuDeviceGetName"))(name, 128, device));
	*capability = major * 10 + minor;
	if (major < 5) {
		printf("%s: compute capability %d.%d\n", way, major, minor);
		exit(1);
	}
	return device;
}

static int old_way(void)
{
	char name[128];
	unsigned char uuid[16];
	size_t available = 0, total = 0;
	void *context;
	int capability, device;
	glob_t found;

	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns) && !library; i++) {
		if (glob(patterns[i], 0, NULL, &found))
			continue;
		for (size_t j = 0; j < found.gl_pathc && !library; j++)
			if (!strstr(found.gl_pathv[j], "/stubs/"))
				library = dlopen(found.gl_pathv[j], RTLD_LAZY);
		globfree(&found);
	}
	if (!library) {
		puts("old: no library at any of its places");
		return 1;
	}
	device = describe("old", name, &capability);
	check("cuDeviceGetUuid", ((int (*)(void *, int))symbol("cuDeviceGetUuid"))(uuid, device));
	check("cuCtxCreate_v3",
	      ((int (*)(void **, void *, int, unsigned, int))symbol("cuCtxCreate_v3"))(&context, NULL, 0, 0, device));
	check("cuMemGetInfo_v2", ((int (*)(size_t *, size_t *))symbol("cuMemGetInfo_v2"))(&available, &total));
	check("cuCtxDestroy", ((int (*)(void *))symbol("cuCtxDestroy"))(context));
	printf("old: %s, compute %d, %zu of %zu MiB free\n", name, capability, available >> 20, total >> 20);
	return total >> 20 < 458;
}

static int new_way(void)
{
	char name[128], bus[32] = "", release[96] = "";
	size_t total = 0;
	int capability, device, integrated;

	library = dlopen("libcuda.so.1", RTLD_NOW);
	if (!library)
		library = dlopen("libcuda.so", RTLD_NOW);
	if (!library) {
		puts(dlerror());
		return 1;
	}
	device = describe("new", name, &capability);
	check("integrated", ((int (*)(int *, int, int))symbol("cuDeviceGetAttribute"))(&integrated, 18, device));
	check("cuDeviceTotalMem_v2", ((int (*)(size_t *, int))symbol("cuDeviceTotalMem_v2"))(&total, device));
	check("cuDeviceGetPCIBusId", ((int (*)(char *, int, int))symbol("cuDeviceGetPCIBusId"))(bus, 32, device));
	library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
	if (!library) {
		puts(dlerror());
		return 1;
	}
	check("nvmlInit_v2", ((int (*)(void))symbol("nvmlInit_v2"))());
	check("driver", ((int (*)(char *, unsigned))symbol("nvmlSystemGetDriverVersion"))(release, sizeof(release)));
	check("nvmlShutdown", ((int (*)(void))symbol("nvmlShutdown"))());
	printf("new: %s, compute %d, %zu MiB, %s, driver %s\n", name, capability, total >> 20, bus, release);
	return !total || atoi(release) < 550 || !*bus;
}

static pid_t start(const char *program, const char *way)
{
	pid_t child = fork();

	if (!child) {
		execl(program, program, way, (char *)NULL);
		_exit(127);
	}
	return child;
}

static int ended_well(pid_t child)
{
	int status;

	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
}

int main(int count, char **arguments)
{
	const char *way = count > 1 ? arguments[1] : "all";
	pid_t children[PARALLEL];
	int well = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(way, "old"))
		return old_way();
	if (!strcmp(way, "new"))
		return new_way();
	for (int i = 0; i < 4; i++)
		well += ended_well(start("/proc/self/exe", i % 2 ? "new" : "old"));
	setenv("CUDA_VISIBLE_DEVICES", "0", 1);
	for (int i = 0; i < PARALLEL; i++)
		children[i] = start("/proc/self/exe", i % 2 ? "new" : "old");
	for (int i = 0; i < PARALLEL; i++)
		well += ended_well(children[i]);
	printf("%d of %d probes have found a GPU\n", well, 4 + PARALLEL);
	return well != 4 + PARALLEL;
}
