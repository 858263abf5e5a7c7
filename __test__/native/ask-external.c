/* Loaded by addon.spec.ts: an addon that does ask for an external buffer, the way ours looks functions up. It shows that
 * refuse-external.c would notice. Its exports are the answer's status, 0 where external buffers are allowed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

typedef int CreateExternal(void *, void *, size_t, void (*)(void *, void *, void *), void *, void **);
typedef int CreateNumber(void *, uint32_t, void **);

static char memory[100];

static void keep(void *env, void *data, void *hint) { (void)env, (void)data, (void)hint; }

void *napi_register_module_v1(void *env, void *exports) {
  void *host = dlopen(NULL, RTLD_LAZY);
  CreateExternal *external = (CreateExternal *)dlsym(host, "napi_create_external_arraybuffer");
  CreateNumber *number = (CreateNumber *)dlsym(host, "napi_create_uint32");
  void *result = NULL;
  int status = external(env, memory, sizeof memory, keep, NULL, &result);
  number(env, (uint32_t)status, &exports);
  return exports;
}
