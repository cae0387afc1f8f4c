// The body of the CUDA kernel with threads of the host for those of a block.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "schedule/plan/step_in_block.h"

namespace {

class Meeting {
 public:
  explicit Meeting(int threads) : threads_(threads) {}

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const int round = round_;
    if (++arrived_ == threads_) {
      arrived_ = 0;
      ++round_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&] { return round_ != round; });
    }
  }
  void publish() { wait(); }
  bool all(bool yes) {
    if (!yes) no_ = true;
    wait();
    return !no_;
  }
  template <typename T>
  void copy(T* to, const T* from) {
    *to = *from;
  }
  void copied() { wait(); }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  const int threads_;
  int arrived_ = 0;
  int round_ = 0;
  std::atomic<bool> no_ = false;
};

template <typename LR>
bool step(const fastsched::Buffers& buffers, LR* lrs, const fastsched::Call& call, bool has_room,
          int threads) {
  Meeting meeting(threads);
  const auto bytes = static_cast<std::size_t>(fastsched::shared_size<LR>(buffers));
  const std::unique_ptr<double[]> shared(has_room ? new double[(bytes + sizeof(double) - 1) / sizeof(double)]
                                                  : nullptr);
  std::atomic<int> stepped = 0;
  std::vector<std::thread> block;
  for (int thread = 0; thread < threads; ++thread) {
    block.emplace_back([&, thread] {
      stepped += step_in_block(buffers, lrs, call, shared.get(), thread, threads, meeting) ? 1 : 0;
    });
  }
  for (std::thread& one : block) one.join();
  return stepped == threads;
}

}  // namespace

// Whether program and state are a schedule's. `metric` and `found_inf` are float32 numbers, or null.
extern "C" bool step_in_threads(const double* program, long program_size, double* state, long state_size,
                                double* masters, void* lrs, long groups, bool float32, int event,
                                const float* metric, const float* found_inf, bool has_room, int threads) {
  using namespace fastsched;
  const Buffers buffers = {program, state, masters, program_size, state_size, groups};
  const Call call = {static_cast<Event>(event),
                     {metric, ScalarType::f32, 0.0},
                     {found_inf, ScalarType::f32, 0.0}};
  return float32 ? step(buffers, static_cast<float*>(lrs), call, has_room, threads)
                 : step(buffers, static_cast<double*>(lrs), call, has_room, threads);
}
