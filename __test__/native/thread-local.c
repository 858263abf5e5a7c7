/* Loaded in many copies by addon.spec.ts: an addon with BYTES of thread-local memory. Compiled with -ftls-model=
 * initial-exec it takes them from the few that the loader keeps for libraries that come late, and cannot be loaded any
 * more when those are used up; with global-dynamic every thread allocates them when it first touches them. */
__thread volatile char memory[BYTES];

void *napi_register_module_v1(void *env, void *exports) {
  (void)env;
  memory[0]++;
  return exports;
}
