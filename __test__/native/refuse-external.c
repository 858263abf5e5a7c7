/* Preloaded by addon.spec.ts: a host that refuses external buffers, as Electron does since version 21.
 *
 * Memory that V8 has not allocated itself may not lie under an ArrayBuffer there, and Node-API answers
 * napi_no_external_buffers_allowed. The addon asks dlsym for every function of Node-API, and a program's own symbols come
 * before those of preloaded libraries, so it is dlsym that is replaced. It says on standard error who was given which of
 * the two refusing functions, and each refusal. Linux with glibc only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { NO_EXTERNAL_BUFFERS_ALLOWED = 22 };

static int refuse_buffer(void *env, size_t length, void *data, void *finalize, void *hint, void **result) {
  (void)env, (void)data, (void)finalize, (void)hint, (void)result;
  dprintf(2, "refused: napi_create_external_buffer of %zu bytes\n", length);
  return NO_EXTERNAL_BUFFERS_ALLOWED;
}

static int refuse_arraybuffer(void *env, void *data, size_t length, void *finalize, void *hint, void **result) {
  (void)env, (void)data, (void)finalize, (void)hint, (void)result;
  dprintf(2, "refused: napi_create_external_arraybuffer of %zu bytes\n", length);
  return NO_EXTERNAL_BUFFERS_ALLOWED;
}

typedef void *Lookup(void *, const char *);

static Lookup *original(void) {
  static Lookup *found;
  /* The version of the symbol is that of the processor's first glibc, or the one that brought libdl into libc. */
  static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.4"};
  for (size_t i = 0; found == NULL && i < sizeof versions / sizeof *versions; i++)
    found = (Lookup *)dlvsym(RTLD_NEXT, "dlsym", versions[i]);
  return found;
}

void *dlsym(void *restrict handle, const char *restrict name) {
  void *refusing = NULL;
  if (strcmp(name, "napi_create_external_buffer") == 0) refusing = (void *)refuse_buffer;
  if (strcmp(name, "napi_create_external_arraybuffer") == 0) refusing = (void *)refuse_arraybuffer;
  if (refusing != NULL) {
    Dl_info who;
    int known = dladdr(__builtin_return_address(0), &who);
    dprintf(2, "given: %s to %s\n", name, known != 0 && who.dli_fname != NULL ? who.dli_fname : "?");
    return refusing;
  }
  /* The caller of dlsym matters to RTLD_NEXT: compiled with -O2 this is a jump, and the caller stays the caller. */
  return original()(handle, name);
}
