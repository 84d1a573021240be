/* Stands in for NVIDIA's driver: its calls on the memory of the processor, for tests on machines without a GPU. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int held = 0;
int memories_held(void) { return held; }

int cuInit(unsigned flags) { return flags != 0 || getenv("OFA_TEST_NO_GPU") ? 100 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in", length); return device != 7; }
int cuDeviceGetPCIBusId(char *bus_id, int length, int device) { strncpy(bus_id, "0000:65:00.0", length); return device != 7; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &held; return device != 7; }
int cuCtxSetCurrent(void *context) { return context != &held; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = &held; return flags != 0; }
int cuStreamSynchronize(void *stream) { return stream != &held; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (size > 1 << 30) return 2;
    *address = (uint64_t)malloc(size);
    held++;
    return 0;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); held--; return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { memcpy(to, (void *)from, size); return 0; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INVALID_VALUE";
    return 0;
}
