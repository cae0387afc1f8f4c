// What of a noisy metric is judged: the mean of some, or an exponential average. Shared by everything that
// watches a metric.
#pragma once

#include "schedule/plan/host_device.h"
#include "schedule/plan/update.h"

namespace fastsched {

FASTSCHED_HD bool is_finite(double number) { return number - number == 0.0; }

// A mean in which what is older counts less, by `decay` for each number since: 1 gives the plain mean. Of
// equal numbers it is that number, exactly. With decay below 1 it is the exponential average divided by
// 1 - decay^n, as in Adam (Kingma and Ba, arXiv:1412.6980), so that it does not begin near 0.
struct RunningMean {
  double value;
  double weight;  // 0: of no numbers yet

  // What is not finite makes the mean what it makes a sum.
  FASTSCHED_HD void add(double number, double decay) {
    weight = decay * weight + 1.0;
    value = is_finite(number) && is_finite(value) ? value + (number - value) / weight : value + number;
  }
};

// The running sum of the last metrics, with the rounding errors that it gathers in transformers'
// StreamingAverage.
struct MovingSum {
  double sum;
  double count;  // of the metrics taken: below twice the window's size, the rest of the division is the place

  // Takes note of a metric and returns the mean of those in the window.
  FASTSCHED_HD double mean_with(double metric, const Window& window) {
    const auto size = static_cast<double>(window.size);
    if (!(count >= 0.0 && count < 2.0 * size)) count = 0.0;  // no count at all
    const bool full = count >= size;
    double& oldest = window.values[static_cast<std::int64_t>(full ? count - size : count)];
    sum += metric;
    if (full) sum -= oldest;
    oldest = metric;
    count += 1.0;
    if (count >= 2.0 * size) count = size;
    return sum / (count < size ? count : size);
  }
};

struct JudgedMetricState {
  RunningMean accumulated;
  RunningMean smoothed;
};

struct JudgedMetric {
  double accumulate;  // so many metrics make one that is judged
  double smoothing;   // the decay of the average of those, 0: there is none

  FASTSCHED_HD bool valid() const { return accumulate >= 1.0 && smoothing >= 0.0 && smoothing < 1.0; }

  // Takes note of a metric. True where there is one to judge, which `metric` is then. What is not finite is
  // judged as it is, and not kept in the average, which would never be finite again.
  FASTSCHED_HD bool operator()(double& metric, JudgedMetricState& state) const {
    if (accumulate != 1.0) {
      state.accumulated.add(metric, 1.0);
      if (state.accumulated.weight < accumulate) return false;
      metric = state.accumulated.value;
      state.accumulated = {0.0, 0.0};
    }
    if (smoothing != 0.0 && is_finite(metric)) {
      state.smoothed.add(metric, smoothing);
      metric = state.smoothed.value;
    }
    return true;
  }
};

}  // namespace fastsched
