// One launch per step for any number of param groups, on the current stream. It never synchronizes and may be
// captured: everything that changes between replays is in device memory.
#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "arguments.h"
#include "schedule/plan/step_in_block.h"
#include "stable.h"

namespace fastsched::ops {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kWarp = 32;
constexpr std::int64_t kBytesPerThread = 64;     // to copy, if there are enough threads
constexpr std::int64_t kGivenToAll = 48 * 1024;  // bytes of shared memory that need not be requested

struct Barrier {
  __device__ void wait() { __syncthreads(); }
  template <typename T>
  __device__ void copy(T* to, const T* from) {
    __pipeline_memcpy_async(to, from, sizeof(T));
  }
  __device__ void copied() {
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
  }
  __device__ bool all(bool yes) { return __syncthreads_and(yes ? 1 : 0) != 0; }
  __device__ void publish() {
    __threadfence_system();
    __syncthreads();
    __threadfence_system();  // orders what others wrote before the barrier before this thread's next writes
  }
};

// A single block: the decision is serial, and within one block no grid-wide barrier has to follow it.
template <typename LR>
__global__ void __launch_bounds__(kMaxThreads)
    step_kernel(Buffers buffers, LR* lrs, Call call, bool has_room) {
  extern __shared__ double shared[];
  Barrier barrier;
  const bool fits =
      step_in_block(buffers, lrs, call, has_room ? shared : nullptr, threadIdx.x, blockDim.x, barrier);
  // The host cannot look into device memory, so what the CPU operator reports as an error traps here.
  if (!fits) __trap();
}

void check_cuda(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "fastsched::step_: CUDA error: ", cudaGetErrorString(error));
}

// How much shared memory a block of the kernel may have on this device.
int shared_limit(const void* kernel, int device) {
  int limit = 0;
  check_cuda(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit));
  return limit;
}

template <typename LR>
void launch(const Buffers& buffers, void* lrs, const Call& call, int device, cudaStream_t stream) {
  const auto kernel = step_kernel<LR>;
  const std::int64_t size = shared_size<LR>(buffers);
  const bool has_room =
      size <= kGivenToAll || size <= shared_limit(reinterpret_cast<const void*>(kernel), device);
  const std::int64_t wanted = std::max(buffers.groups, has_room ? size / kBytesPerThread : 0);
  const std::int64_t warps = std::max<std::int64_t>((wanted + kWarp - 1) / kWarp, 1);
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>(warps * kWarp, kMaxThreads));
  const auto bytes = static_cast<std::size_t>(has_room ? size : 0);
  kernel<<<1, threads, bytes, stream>>>(buffers, static_cast<LR*>(lrs), call, has_room);
  check_cuda(cudaGetLastError());
}

void step_cuda(const Tensor program, const Tensor state, const Tensor masters, const Tensor lrs,
               const OptionalTensor metric, double value, std::int64_t event,
               const OptionalTensor found_inf) {
  const Buffers buffers = check_buffers(program, state, masters, lrs, metric, found_inf);
  const Call call = check_call(metric, found_inf, value, event, lrs);
  const int device = lrs.get_device_index();
  const DeviceGuard guard(device);  // it may differ from the caller's current device
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  if (is_float32(lrs)) {
    launch<float>(buffers, lrs.data_ptr(), call, device, static_cast<cudaStream_t>(stream));
  } else {
    launch<double>(buffers, lrs.data_ptr(), call, device, static_cast<cudaStream_t>(stream));
  }
}

}  // namespace
}  // namespace fastsched::ops

STABLE_TORCH_LIBRARY_IMPL(fastsched, CUDA, library) {
  library.impl("step_", TORCH_BOX(&fastsched::ops::step_cuda));
}
