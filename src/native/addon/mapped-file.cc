// Files mapped into memory, and tensors that view them. A mapping is private and copy-on-write: the file is never
// written, and writing to a view changes that view's memory alone. It is unmapped when its last view is freed and
// JavaScript has let go of it.
//
// A file that another process truncates while it is mapped would kill this process with SIGBUS on the next touch. The
// size is therefore checked when mapping and again before each view; between a view and its last use the file must stay.

#include "addon.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <vector>

namespace sluice {
namespace {

class MappedFile {
 public:
  MappedFile(const std::string& path, size_t expectedBytes) : path_(path), size_(expectedBytes) {
    file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // not blocking: a FIFO must not hang us
    if (file_ < 0) fail("cannot open it");
    try {
      checkSize();
      if (size_ == 0) return;
      void* memory = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file_, 0);
      if (memory == MAP_FAILED) fail("cannot map it");
      memory_ = static_cast<uint8_t*>(memory);
    } catch (...) {
      ::close(file_);
      throw;
    }
  }

  ~MappedFile() {
    if (memory_) ::munmap(memory_, size_);
    ::close(file_);
  }

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  void checkSize() const {
    struct stat status;
    if (::fstat(file_, &status) != 0) fail("cannot read its size");
    if (!S_ISREG(status.st_mode)) throw std::runtime_error(path_ + ": not a regular file");
    if (static_cast<size_t>(status.st_size) != size_)
      throw std::runtime_error(path_ + ": expected " + std::to_string(size_) + " bytes, received " +
                               std::to_string(status.st_size) + "; the file changed while it was being read");
  }

  uint8_t* at(size_t offset, size_t bytes) const {
    if (offset > size_ || bytes > size_ - offset)
      throw std::out_of_range(path_ + ": bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                              " leave the file of " + std::to_string(size_));
    return memory_ + offset;
  }

  /// Reads bytes without touching the mapping: no page of the file becomes this process's, and memory that is read into
  /// costs no more than the copy.
  void read(size_t offset, size_t bytes, uint8_t* target) const {
    at(offset, bytes);
    while (bytes > 0) {
      const ssize_t count = ::pread(file_, target, bytes, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("cannot read it");
      if (count == 0) throw std::runtime_error(path_ + ": ends at byte " + std::to_string(offset) + "; the file changed while it was being read");
      offset += count, target += count, bytes -= count;
    }
  }

  /// Lets the kernel drop the whole pages inside a range; they are read again when touched.
  void release(size_t offset, size_t bytes) const {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t begin = (offset + page - 1) / page * page;
    const size_t end = (offset + bytes == size_ ? offset + bytes + page - 1 : offset + bytes) / page * page;
    at(offset, bytes);
    if (memory_ && end > begin) ::madvise(memory_ + begin, end - begin, MADV_DONTNEED);
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::runtime_error(path_ + ": " + what + ": " + std::generic_category().message(errno));
  }

  std::string path_;
  size_t size_;
  int file_ = -1;
  uint8_t* memory_ = nullptr;
};

using Shared = std::shared_ptr<MappedFile>;

const Shared& sharedOf(const Napi::Value& value) {
  const Shared& shared = *value.As<Napi::External<Shared>>().Data();
  if (!shared) throw std::runtime_error("mapped file: expected an open one, received one that was closed");
  return shared;
}

size_t bytesOf(const Napi::Value& value) {
  const int64_t bytes = value.As<Napi::Number>().Int64Value();
  if (bytes < 0) throw std::out_of_range("mapped file: expected a size of 0 or more, received " + std::to_string(bytes));
  return static_cast<size_t>(bytes);
}

/// mapFile(path, expectedBytes) -> the mapping
Napi::Value MapFile(const Napi::CallbackInfo& info) {
  auto shared = std::make_unique<Shared>(
      std::make_shared<MappedFile>(info[0].As<Napi::String>().Utf8Value(), bytesOf(info[1])));
  return Napi::External<Shared>::New(info.Env(), shared.release(), [](Napi::Env, Shared* data) { delete data; });
}

/// mappedTensor(mapping, offset, bytes, dtype, sizes) -> handle of a view. Bytes that are not aligned to the dtype are
/// copied, since kernels may load whole vectors of elements.
Napi::Value MappedTensor(const Napi::CallbackInfo& info) {
  const Shared& shared = sharedOf(info[0]);
  const size_t offset = bytesOf(info[1]), bytes = bytesOf(info[2]);
  const auto dtype = dtypeOf(info[3].As<Napi::String>());
  const auto sizes = sizesOf(info[4]);
  const size_t itemBytes = c10::elementSize(dtype);
  size_t needed = itemBytes;
  for (int64_t size : sizes)
    if (__builtin_mul_overflow(needed, static_cast<size_t>(size), &needed)) throw std::out_of_range("mapped file: the shape overflows");
  if (needed != bytes)
    throw std::invalid_argument("mapped file: expected " + std::to_string(needed) + " bytes for the shape, received " + std::to_string(bytes));
  shared->checkSize();
  uint8_t* data = shared->at(offset, bytes);
  const auto options = at::TensorOptions(dtype);
  if (bytes == 0) return Napi::Number::New(info.Env(), keepTensor(at::empty(sizes, options)));
  if (reinterpret_cast<uintptr_t>(data) % itemBytes != 0) {
    at::Tensor copy = at::empty(sizes, options);
    std::memcpy(copy.mutable_data_ptr(), data, bytes);
    return Napi::Number::New(info.Env(), keepTensor(std::move(copy)));
  }
  at::Tensor view = at::from_blob(data, sizes, [owner = shared](void*) {}, options);
  return Napi::Number::New(info.Env(), keepTensor(std::move(view)));
}

constexpr size_t kPieceBytes = 4 << 20;    // read by one thread at a time
constexpr size_t kConvertBytes = 256 << 10;  // stays in a core's cache between reading and converting

/// Reads elements of `stored` into those of `target` that begin at `first`.
void readConverted(const MappedFile& file, size_t offset, size_t count, c10::ScalarType stored, const at::Tensor& target, size_t first) {
  const size_t storedBytes = c10::elementSize(stored), bytes = c10::elementSize(target.scalar_type());
  uint8_t* out = static_cast<uint8_t*>(target.mutable_data_ptr()) + first * bytes;
  if (stored == target.scalar_type()) return file.read(offset, count * bytes, out);
  static thread_local std::vector<double> buffer(kConvertBytes / sizeof(double));  // aligned to any element
  uint8_t* in = reinterpret_cast<uint8_t*>(buffer.data());
  const size_t step = kConvertBytes / storedBytes;
  for (size_t done = 0; done < count; done += step) {
    const auto some = static_cast<int64_t>(std::min(step, count - done));
    file.read(offset + done * storedBytes, some * storedBytes, in);
    at::from_blob(out + done * bytes, {some}, target.options()).copy_(at::from_blob(in, {some}, at::TensorOptions(stored)));
  }
}

/// readMapped(mapping, offset, dtype, target): reads as many elements as `target` has, on several threads, converting them
/// to its dtype. -> false, and nothing done, where `target` is not contiguous on a CPU.
Napi::Value ReadMapped(const Napi::CallbackInfo& info) {
  const Shared shared = sharedOf(info[0]);
  const size_t offset = bytesOf(info[1]);
  const auto stored = dtypeOf(info[2].As<Napi::String>());
  at::NoGradGuard noGrad;
  const at::Tensor target = tensorOf(info[3].As<Napi::Number>().DoubleValue()).detach();
  if (!target.is_cpu() || !target.is_contiguous()) return Napi::Boolean::New(info.Env(), false);
  const size_t count = target.numel(), storedBytes = c10::elementSize(stored);
  shared->at(offset, count * storedBytes);
  shared->checkSize();
  const size_t piece = kPieceBytes / storedBytes;
  const int64_t pieces = (count + piece - 1) / piece;
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    at::NoGradGuard noGradHere;  // the mode is each thread's own
    for (int64_t i = begin; i < end; ++i) {
      const size_t first = i * piece;
      readConverted(*shared, offset + first * storedBytes, std::min(piece, count - first), stored, target, first);
    }
  });
  return Napi::Boolean::New(info.Env(), true);
}

/// releaseMapped(mapping, offset, bytes): these pages are not needed for now.
Napi::Value ReleaseMapped(const Napi::CallbackInfo& info) {
  sharedOf(info[0])->release(bytesOf(info[1]), bytesOf(info[2]));
  return info.Env().Undefined();
}

/// unmapFile(mapping): lets go of it; views keep it alive for as long as they live.
Napi::Value UnmapFile(const Napi::CallbackInfo& info) {
  info[0].As<Napi::External<Shared>>().Data()->reset();
  return info.Env().Undefined();
}

template <Napi::Value (*door)(const Napi::CallbackInfo&)>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return door(info); }));
}

}  // namespace

void InitMappedFile(Napi::Env env, Napi::Object exports) {
  exports["mapFile"] = Napi::Function::New(env, Guarded<MapFile>, "mapFile");
  exports["mappedTensor"] = Napi::Function::New(env, Guarded<MappedTensor>, "mappedTensor");
  exports["readMapped"] = Napi::Function::New(env, Guarded<ReadMapped>, "readMapped");
  exports["releaseMapped"] = Napi::Function::New(env, Guarded<ReleaseMapped>, "releaseMapped");
  exports["unmapFile"] = Napi::Function::New(env, Guarded<UnmapFile>, "unmapFile");
}

}  // namespace sluice
