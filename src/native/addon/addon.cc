// The addon's entry: gathers the doors of its files into one exports object.

#include "addon.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  sluice::InitMemory();
  sluice::InitOps(env, exports);
  sluice::InitTensors(env, exports);
  sluice::InitMappedFile(env, exports);
  sluice::InitWriteFile(env, exports);
  sluice::InitCopyTensors(env, exports);
  sluice::InitImage(env, exports);
  sluice::InitMemoryCounters(env, exports);
  sluice::InitCrossing(env, exports);
  return exports;
}

NODE_API_MODULE(sluice, Init)
