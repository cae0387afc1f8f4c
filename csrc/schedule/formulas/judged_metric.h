// How a noisy metric is smoothed before it is judged: the mean of several values, or an exponential average.
// Shared by everything that watches a metric.
#pragma once

#include "schedule/plan/host_device.h"
#include "schedule/plan/update.h"

namespace fastsched {

FASTSCHED_HD bool is_finite(double number) { return number - number == 0.0; }

// A weighted mean: each new number multiplies the weights of the older ones by `decay`; 1 gives the plain
// mean. The mean of equal numbers is exactly that number. With decay below 1 this is the exponential average
// divided by 1 - decay^n, as in Adam (Kingma and Ba, arXiv:1412.6980), so it does not start near 0.
struct RunningMean {
  double value;
  double weight;  // 0: no numbers yet

  // An infinity or a NaN does to the mean what it does to a sum.
  FASTSCHED_HD void add(double number, double decay) {
    weight = decay * weight + 1.0;
    value = is_finite(number) && is_finite(value) ? value + (number - value) / weight : value + number;
  }
};

// The running sum of the last metrics, with the same accumulated rounding errors as transformers'
// StreamingAverage.
struct MovingSum {
  double sum;
  double count;  // of metrics added, kept below twice the window's size; modulo the size, the next position

  // Adds a metric and returns the mean of those in the window.
  FASTSCHED_HD double mean_with(double metric, const Window& window) {
    const auto size = static_cast<double>(window.size);
    if (!(count >= 0.0 && count < 2.0 * size)) count = 0.0;  // not a valid count
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
  double accumulate;  // how many metrics are averaged into one that is judged
  double smoothing;   // the decay of the exponential average of those; 0: none

  FASTSCHED_HD bool valid() const { return accumulate >= 1.0 && smoothing >= 0.0 && smoothing < 1.0; }

  // Adds a metric. Returns true if there is now one to judge, which it leaves in `metric`. An infinity or a
  // NaN is judged as it is and kept out of the average, which would never be finite again.
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
