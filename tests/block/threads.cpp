// The body of the CUDA kernel with threads of the host for those of a block.
#include <condition_variable>
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

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  const int threads_;
  int arrived_ = 0;
  int round_ = 0;
};

template <typename LR>
void step(const fastsched::Buffers& buffers, LR* lrs, const fastsched::Moment& moment, int threads) {
  Meeting meeting(threads);
  std::vector<std::thread> block;
  for (int thread = 0; thread < threads; ++thread) {
    block.emplace_back(
        [&, thread] { fastsched::step_in_block(buffers, lrs, moment, thread, threads, meeting); });
  }
  for (std::thread& one : block) one.join();
}

}  // namespace

extern "C" int step_in_threads(const double* program, long program_size, double* state, long state_size,
                               double* masters, void* lrs, long groups, int float32, int event, double value,
                               int threads) {
  const fastsched::Buffers buffers = {program, state, masters, program_size, state_size, groups};
  if (!well_formed(buffers)) return 1;
  const auto moment = fastsched::Moment::make(static_cast<fastsched::Event>(event), value);
  if (float32 != 0) {
    step(buffers, static_cast<float*>(lrs), moment, threads);
  } else {
    step(buffers, static_cast<double*>(lrs), moment, threads);
  }
  return 0;
}
