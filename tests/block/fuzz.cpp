// Random programs, damaged at random, stepped under AddressSanitizer and UndefinedBehaviorSanitizer: whatever
// the words of a program or a state are, a step is refused or stays within its buffers, and ends.
//
//   fuzz SECONDS [SEED]     prints how many programs there were; the sanitizers end the process at a fault
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "schedule/plan/step_in_block.h"
#include "schedule/plan/step_on_host.h"

namespace {

using namespace fastsched;

std::mt19937_64 random_bits;

std::int64_t below(std::int64_t bound) {
  return static_cast<std::int64_t>(random_bits() % static_cast<std::uint64_t>(bound));
}
bool chance(int percent) { return below(100) < percent; }
double fraction() { return static_cast<double>(below(1 << 20)) / (1 << 20); }

double wild() {
  const double infinity = std::numeric_limits<double>::infinity();
  const double known[] = {std::nan(""), infinity, -infinity, 1e300, -1e300, kExactIntegers, 9.3e18, -9.3e18,
                          4.3e9,        -1.0,     -0.0,      0.5,   1e-300, 5e-324,         1e12,   -2.5};
  if (chance(60)) return known[below(sizeof(known) / sizeof(double))];
  if (chance(50)) return static_cast<double>(below(40));
  const std::uint64_t bits = random_bits();
  return load<double>(&bits);
}

// Memory of exactly its size, so that the first word outside is found.
class Words {
 public:
  explicit Words(const std::vector<double>& words)
      : size_(static_cast<std::int64_t>(words.size())), words_(new double[words.size()]) {
    std::copy(words.begin(), words.end(), words_.get());
  }
  double* get() const { return words_.get(); }
  std::int64_t size() const { return size_; }

 private:
  std::int64_t size_;
  std::unique_ptr<double[]> words_;
};

struct Written {
  std::vector<double> program;
  std::vector<double> state;
};

// A valid program of a schedule, or of a composition of at most `depth` levels.
Written grow(int depth, std::int64_t groups) {
  Node node = {};
  const bool composite = depth > 0 && chance(60);
  node.kind_number = static_cast<double>(
      composite ? static_cast<int>(chance(50) ? Kind::sequential : Kind::chained) : below(kKinds));
  while (!composite && is_composite(node.kind())) node.kind_number = static_cast<double>(below(kKinds));
  for (double& param : node.params) param = chance(50) ? static_cast<double>(1 + below(5)) : fraction();
  std::vector<double> table;
  std::vector<Written> children;
  double columns = 1.0;
  switch (node.kind()) {
    case Kind::sequential:
    case Kind::chained:
      node.children = static_cast<double>(1 + below(3));
      for (double i = 0.0; i < node.children; i += 1.0) children.push_back(grow(depth - 1, groups));
      for (double i = 1.0; node.kind() == Kind::sequential && i < node.children; i += 1.0) {
        table.push_back(static_cast<double>(below(12)));
      }
      break;
    case Kind::multi_step:
      for (std::int64_t i = below(4); i > 0; --i)
        table.insert(table.end(), {static_cast<double>(below(9)), 1.0});
      break;
    case Kind::one_cycle: table = {3.0, 6.0, 9.0}; break;
    case Kind::phases:
      table = {2.0, chance(50) ? 3.0 : 0.0, static_cast<double>(1 + below(2)), 0.5, 0.0, 3.0};
      for (double start = 0.0; start < 6.0; start += 2.0) {
        const double curve = static_cast<double>(below(16));
        table.insert(table.end(), {start + 2.0, start, 2.0, 2.0, curve, static_cast<double>(below(2)), 1.0,
                                   fraction(), fraction(), fraction(), 1.0});
      }
      break;
    case Kind::lambda:
    case Kind::multiplicative:
      columns = static_cast<double>(1 + below(3));
      node.params[0] = columns;
      for (std::int64_t i = below(6) * static_cast<std::int64_t>(columns); i > 0; --i)
        table.push_back(fraction());
      break;
    default: break;
  }
  Written written;
  node.table_size = static_cast<double>(table.size());
  node.selective = chance(20) ? 1.0 : 0.0;
  node.window_size = node.kind() == Kind::greedy && chance(70) ? static_cast<double>(1 + below(4)) : 0.0;
  node.size = own_program_size(node, static_cast<double>(groups));
  node.state_size = own_state_size(node, static_cast<double>(groups));
  written.state.assign(static_cast<std::size_t>(node.state_size), 0.0);
  for (int i = 0; i < kNodeCounters; ++i)
    written.state[static_cast<std::size_t>(i)] = static_cast<double>(below(8));
  for (const Written& child : children) {
    node.size += static_cast<double>(child.program.size());
    node.state_size += static_cast<double>(child.state.size());
    written.state.insert(written.state.end(), child.state.begin(), child.state.end());
  }
  written.program.resize(kNodeSize);
  write_words(written.program.data(), node);
  for (int k = 0; k < own_params(node.kind()); ++k) {
    const bool is_column =
        k == kColumn && (node.kind() == Kind::lambda || node.kind() == Kind::multiplicative);
    for (std::int64_t i = 0; i < groups; ++i) {
      written.program.push_back(is_column ? static_cast<double>(below(static_cast<std::int64_t>(columns)))
                                          : fraction());
    }
  }
  for (std::int64_t i = 0; node.selective != 0.0 && i < groups; ++i)
    written.program.push_back(chance(10) ? fraction() : static_cast<double>(below(2)));
  written.program.insert(written.program.end(), table.begin(), table.end());
  for (const Written& child : children) {
    written.program.insert(written.program.end(), child.program.begin(), child.program.end());
  }
  return written;
}

// Pointers with their complement are trusted, so two words of a state are never exchanged.
void damage(std::vector<double>& words, bool exchange) {
  for (std::int64_t i = 1 + below(4); i > 0 && !words.empty(); --i) {
    const auto size = static_cast<std::int64_t>(words.size());
    double& word =
        words[static_cast<std::size_t>(below(chance(50) ? size : std::min<std::int64_t>(size, kNodeSize)))];
    if (exchange && chance(20)) {
      std::swap(word, words[static_cast<std::size_t>(below(size))]);
    } else {
      word = chance(20) ? word + (chance(50) ? 1.0 : -1.0) : wild();
    }
  }
  if (chance(15)) words.resize(words.size() + static_cast<std::size_t>(below(3)), wild());
  if (chance(15))
    words.resize(words.size() - std::min<std::size_t>(words.size(), static_cast<std::size_t>(below(3))));
}

void point(std::vector<double>& state, int offset, const double* memory) {
  const auto address = reinterpret_cast<std::uint64_t>(memory);
  const std::uint64_t words[] = {address, ~address};
  memcpy(state.data() + offset, words, sizeof(words));
}

// A block with one thread.
struct NoBarrierInBlock : NoBarrier {
  template <typename T>
  void copy(T* to, const T* from) {
    *to = *from;
  }
  void copied() {}
  bool all(bool yes) { return yes; }
};

template <typename LR>
bool step_in_block_alone(const Buffers& buffers, LR* lrs, Event event, double value, bool has_room) {
  NoBarrierInBlock alone;
  const auto size = static_cast<std::size_t>(shared_size<LR>(buffers));
  const std::unique_ptr<char[]> shared(has_room ? new char[size] : nullptr);  // of exactly its size, too
  const Call call = {event, {nullptr, ScalarType::f64, value}, {nullptr, ScalarType::f64, 0.0}};
  return step_in_block(buffers, lrs, call, reinterpret_cast<double*>(shared.get()), 0, 1, alone);
}

template <typename LR>
bool run(std::int64_t groups) {
  Written written = grow(3, groups);
  const Words mirror(std::vector<double>(static_cast<std::size_t>(mirror_size(groups))));
  const std::int64_t columns = kHistoryOwn + groups;
  std::vector<double> rows(static_cast<std::size_t>(kHistoryHeader + 2 * columns));
  write_words(rows.data(), History{2.0, static_cast<double>(columns), 0.0});
  const double none[] = {std::nan(""), 0.0, -1.0, 0.5, 1e300};  // a history's own memory is trusted otherwise
  if (chance(10)) rows[0] = none[below(5)];
  if (chance(10)) rows[2] = wild();
  if (chance(80)) damage(written.program, true);
  if (chance(40)) damage(written.state, false);
  if (chance(5)) groups = below(8);
  const Words history(rows);
  if (static_cast<std::int64_t>(mirror.size()) == mirror_size(groups) &&
      written.state.size() >= kNodeStateSize) {
    if (chance(50)) point(written.state, kMirrorOffset, mirror.get());
    if (chance(50)) point(written.state, kHistoryOffset, history.get());
  }
  const Words program(written.program);
  const Words state(written.state);
  const Words masters(std::vector<double>(static_cast<std::size_t>(groups), chance(5) ? wild() : fraction()));
  const std::unique_ptr<LR[]> lrs(new LR[static_cast<std::size_t>(groups)]());
  const Buffers buffers = {program.get(), state.get(), masters.get(), program.size(), state.size(), groups};
  if (!well_formed(buffers)) {
    if (step_in_block_alone(buffers, lrs.get(), Event::step, 1.0, chance(80))) std::abort();
    return false;
  }
  const bool on_host = columns_fit(buffers) && chance(50);
  const bool has_room = chance(80);
  for (int i = 0; i < 12; ++i) {
    const auto event = static_cast<Event>(chance(60) ? 0 : below(kEvents));
    const double value = chance(50) ? wild() : static_cast<double>(i);
    if (on_host) {
      step_on_host(buffers, lrs.get(), StepInput::make(event, value));
    } else if (!step_in_block_alone(buffers, lrs.get(), event, value, has_room)) {
      std::abort();  // a column outside of the table is NaN there
    }
    if (chance(20) && state.size() > 0) {
      const std::int64_t word = below(state.size());
      if (chance(50) || word >= kNodeStateSize || word < kMirrorOffset)
        state.get()[word % kMirrorOffset] = wild();
    }
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 10.0;
  const std::uint64_t first = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t seed = first;
  long stepped = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++seed) {
    random_bits.seed(seed);
    const std::int64_t groups = below(6);
    stepped += (chance(50) ? run<float>(groups) : run<double>(groups)) ? 1 : 0;
  }
  const auto programs = static_cast<long>(seed - first);
  std::printf("%ld programs, %ld stepped, %ld refused\n", programs, stepped, programs - stepped);
  return stepped > 0 && stepped < programs ? 0 : 1;
}
