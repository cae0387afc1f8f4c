// One launch per step at any number of param groups. Launched on the current stream, never synchronizes,
// may be captured: everything that changes between replays lies in device memory.
#include <cuda_runtime.h>

#include "arguments.h"
#include "schedule/plan/step_in_block.h"
#include "stable.h"

namespace fastsched::ops {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kWarp = 32;

struct Barrier {
  __device__ void wait() { __syncthreads(); }
  __device__ void publish() {
    __threadfence_system();
    __syncthreads();
    __threadfence_system();  // what others wrote before the barrier comes before what this thread writes next
  }
};

// A single block: the decision is serial, and one block needs no grid-wide barrier between it and the groups.
template <typename LR>
__global__ void __launch_bounds__(kMaxThreads) step_kernel(Buffers buffers, LR* lrs, Call call) {
  if (call.skipped()) return;  // the same for all threads
  // The host cannot look into device memory, so what the CPU operator reports as an error stops here.
  if (threadIdx.x == 0 && !well_formed(buffers)) __trap();
  Barrier barrier;
  step_in_block(buffers, lrs, call.moment(), threadIdx.x, blockDim.x, barrier);
}

void check_cuda(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "fastsched::step_: CUDA error: ", cudaGetErrorString(error));
}

template <typename LR>
void launch(const Buffers& buffers, void* lrs, const Call& call, cudaStream_t stream) {
  const std::int64_t warps = (buffers.groups + kWarp - 1) / kWarp;
  const std::int64_t wanted = warps * kWarp;
  const int threads = static_cast<int>(wanted < kWarp ? kWarp : wanted > kMaxThreads ? kMaxThreads : wanted);
  step_kernel<LR><<<1, threads, 0, stream>>>(buffers, static_cast<LR*>(lrs), call);
  check_cuda(cudaGetLastError());
}

void step_cuda(const Tensor program, const Tensor state, const Tensor masters, const Tensor lrs,
               const OptionalTensor metric, double value, std::int64_t event,
               const OptionalTensor found_inf) {
  const Buffers buffers = check_buffers(program, state, masters, lrs, metric, found_inf);
  const Call call = check_call(metric, found_inf, value, event, lrs);
  const int device = lrs.get_device_index();
  const DeviceGuard guard(device);  // the buffers may live on another device than the caller's
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  if (is_float32(lrs)) {
    launch<float>(buffers, lrs.data_ptr(), call, static_cast<cudaStream_t>(stream));
  } else {
    launch<double>(buffers, lrs.data_ptr(), call, static_cast<cudaStream_t>(stream));
  }
}

}  // namespace
}  // namespace fastsched::ops

STABLE_TORCH_LIBRARY_IMPL(fastsched, CUDA, library) {
  library.impl("step_", TORCH_BOX(&fastsched::ops::step_cuda));
}
