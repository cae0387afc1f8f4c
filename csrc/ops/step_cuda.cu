// One launch per step at any number of param groups. Launched on the current stream, never synchronizes,
// may be captured: everything that changes between replays lies in device memory.
#include <cuda_runtime.h>

#include "arguments.h"
#include "stable.h"

namespace fastsched::ops {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kWarp = 32;

// A single block: the decision is serial, and one block needs no grid-wide barrier between it and the
// groups. `masters`, `lrs` and `state` are disjoint, and each thread writes only its own groups.
template <typename LR>
__global__ void __launch_bounds__(kMaxThreads)
    step_kernel(Buffers buffers, LR* lrs, Metric metric, Event event) {
  if (threadIdx.x == 0) {
    // The host cannot look into device memory, so what the CPU operator reports as an error stops here.
    if (!well_formed(buffers)) __trap();
    decide_all(buffers, {event, metric.read()});
  }
  __syncthreads();  // makes the updates in the state's scratch visible to the block
  const std::int64_t nodes = node_count(buffers);
  for (std::int64_t group = threadIdx.x; group < buffers.groups; group += blockDim.x) {
    double lr = follow(buffers.masters[group], lrs[group]);
    for (std::int64_t node = 0; node < nodes; ++node) {
      lr = apply(update_at(buffers, node), lr, group_params(buffers, node)[group]).lr;
    }
    buffers.masters[group] = lr;
    lrs[group] = static_cast<LR>(lr);
    last_lrs(buffers)[group] = lr;
  }
}

void check_cuda(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "fastsched::step_: CUDA error: ", cudaGetErrorString(error));
}

template <typename LR>
void launch(const Buffers& buffers, void* lrs, const Metric& metric, Event event, cudaStream_t stream) {
  const std::int64_t warps = (buffers.groups + kWarp - 1) / kWarp;
  const std::int64_t wanted = warps * kWarp;
  const int threads = static_cast<int>(wanted < kWarp ? kWarp : wanted > kMaxThreads ? kMaxThreads : wanted);
  step_kernel<LR><<<1, threads, 0, stream>>>(buffers, static_cast<LR*>(lrs), metric, event);
  check_cuda(cudaGetLastError());
}

void step_cuda(const Tensor program, const Tensor state, const Tensor masters, const Tensor lrs,
               const OptionalTensor metric, double value, std::int64_t event) {
  const Buffers buffers = check_buffers(program, state, masters, lrs);
  const Metric operand = check_metric(metric, value, lrs);
  const Event happening = check_event(event);
  const int device = lrs.get_device_index();
  const DeviceGuard guard(device);  // the buffers may live on another device than the caller's
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  if (is_float32(lrs)) {
    launch<float>(buffers, lrs.data_ptr(), operand, happening, static_cast<cudaStream_t>(stream));
  } else {
    launch<double>(buffers, lrs.data_ptr(), operand, happening, static_cast<cudaStream_t>(stream));
  }
}

}  // namespace
}  // namespace fastsched::ops

STABLE_TORCH_LIBRARY_IMPL(fastsched, CUDA, library) {
  library.impl("step_", TORCH_BOX(&fastsched::ops::step_cuda));
}
