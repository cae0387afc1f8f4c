// The single list of schedules. A row describes one completely, in this order:
//
//   its Kind, and the structs of its parameters and counters, both from a header of schedule/formulas
//   how many parameters each param group has of its own
//   for csrc/host/schedule_attributes.h, which defines these words: the name of the Python class, the
//   attributes that are the parameters and the counters, each in the order of its struct, where the groups'
//   own parameters are, and anything else that is special
//
// Enum, count and dispatch follow from it; the compiler checks that the numbers agree.
#pragma once

#include "host_device.h"

#define FASTSCHED_SCHEDULES(ROW)                                                                            \
  ROW(plateau, Plateau, PlateauState, 1, "ReduceLROnPlateau", plateau(), plateau_counters(),                \
      own(in_list("min_lrs")), reads_metric())                                                              \
  ROW(warmup_plateau, WarmupPlateau, PlateauState, 2, "WarmupReduceLROnPlateau",                            \
      plateau() + params(number("warmup_steps"), number("warmup_start_factor")), plateau_counters(),        \
      own(in_list("min_lrs"), in_list("base_lrs")), reads_metric())                                         \
  ROW(greedy, Greedy, GreedyState, 3, "GreedyLR",                                                           \
      improvement() + params(number("factor"), number("patience"), number("cooldown"), number("warmup"),    \
                             number("eps"), number("reset_start_original")),                                \
      counters(count("last_epoch"), number("best"), count("num_bad_epochs"), count("num_good_epochs"),      \
               count("cooldown_counter"), count("warmup_counter"), count("reset_start"),                    \
               number("_window_sum"), count("_window_count")),                                              \
      own(in_list("min_lrs"), in_list("max_lrs"), in_list("_init_lrs")), reads_metric(),                    \
      window("smooth", "window_size", "_window"), decides_by_all_groups())                                  \
  ROW(step, StepDecay, EpochState, 1, "StepLR", params(number("step_size"), number("gamma")), epochs(),     \
      own(in_list("base_lrs")), own_in_closed_form())                                                       \
  ROW(multi_step, MultiStepDecay, EpochState, 1, "MultiStepLR", params(real("gamma")), epochs(),            \
      own(in_list("base_lrs")), own_in_closed_form(), table(TableType::milestone_counts, "milestones"))     \
  ROW(constant, ConstantFactor, EpochState, 1, "ConstantLR",                                                \
      params(number("factor"), number("total_iters")), epochs(), own(in_list("base_lrs")),                  \
      own_in_closed_form())                                                                                 \
  ROW(linear, LinearFactor, EpochState, 1, "LinearLR",                                                      \
      params(number("start_factor"), number("end_factor"), number("total_iters")), epochs(),                \
      own(in_list("base_lrs")), own_in_closed_form())                                                       \
  ROW(exponential, ExponentialDecay, EpochState, 1, "ExponentialLR", params(number("gamma")), epochs(),     \
      own(in_list("base_lrs")), own_in_closed_form())                                                       \
  ROW(polynomial, PolynomialDecay, EpochState, 1, "PolynomialLR",                                           \
      params(number("total_iters"), number("power")), epochs(), own(in_list("base_lrs")),                   \
      own_in_closed_form())                                                                                 \
  ROW(cosine, CosineAnnealing, EpochState, 1, "CosineAnnealingLR",                                          \
      params(number("T_max"), number("eta_min")), epochs(), own(in_list("base_lrs")))                       \
  ROW(warm_restarts, WarmRestarts, WarmRestartsState, 1, "CosineAnnealingWarmRestarts",                     \
      params(number("T_0"), number("T_mult"), number("eta_min")),                                           \
      counters(integer("last_epoch"), count("T_cur"), count("T_i")), own(in_list("base_lrs")))              \
  ROW(lambda, LambdaFactor, EpochState, 2, "LambdaLR", come_with_table<2>(), epochs(),                      \
      own(in_list("base_lrs"), functions("lr_lambdas")), table(TableType::factors, "lr_lambdas"))           \
  ROW(multiplicative, MultiplicativeFactor, EpochState, 2, "MultiplicativeLR", come_with_table<2>(),        \
      epochs(), own(in_list("base_lrs"), functions("lr_lambdas")), table(TableType::factors, "lr_lambdas")) \
  ROW(cyclic, Cyclic, EpochState, 2, "CyclicLR",                                                            \
      params(number("total_size"), number("step_ratio"),                                                    \
             choice("mode", {"triangular", "triangular2", "exp_range"}),                                    \
             choice("scale_mode", {"iterations", "cycle"}), real("gamma")),                                 \
      epochs(), own(in_list("base_lrs"), in_list("max_lrs")),                                               \
      momentum(in_list("max_momentums"), in_list("base_momentums")))                                        \
  ROW(one_cycle, OneCycle, EpochState, 3, "OneCycleLR",                                                     \
      params(choice("_anneal_func_type", {"linear", "cos"}), number("total_steps")), epochs(),              \
      own(in_group("initial_lr"), in_group("max_lr"), in_group("min_lr")),                                  \
      momentum(in_group("max_momentum"), in_group("base_momentum"), in_group("max_momentum")),              \
      table(TableType::phases, "_schedule_phases"))                                                         \
  ROW(swa, Averaging, EpochState, 1, "SWALR",                                                               \
      params(choice("_anneal_strategy", {"linear", "cos"}), number("anneal_epochs")), epochs(),             \
      own(in_group("swa_lr")))                                                                              \
  ROW(phases, Phases, EpochState, 1, "PhasesLR", params(), epochs(), own(in_list("base_lrs")),              \
      table(TableType::numbers, "_phases"))                                                                 \
  ROW(sequential, Sequence, SequenceState, 1, "SequentialLR", params(), counters(integer("last_epoch")),    \
      own(in_group("initial_lr")), own_in_closed_form(), table(TableType::milestones, "_milestones"))       \
  ROW(chained, Chain, NoState, 1, "ChainedScheduler", params(), counters(), own(in_group("initial_lr")),    \
      own_in_closed_form())                                                                                 \
  ROW(early_stopping, EarlyStopping, EarlyStoppingState, 0, "EarlyStopping",                                \
      improvement() +                                                                                       \
          params(limit("patience"), patience_counts(), limit("baseline"), limit("start_after"),             \
                 number("stop_on_nan")) +                                                                   \
          judged_metric(),                                                                                  \
      counters(integer("last_epoch"), number("best"), integer("num_bad_epochs"), integer("stopped_epoch"),  \
               integer("improved")) +                                                                       \
          running_means(),                                                                                  \
      own(), own_in_closed_form(), reads_metric())

namespace fastsched {

#define FASTSCHED_KIND(kind, ...) kind,
enum class Kind : int { FASTSCHED_SCHEDULES(FASTSCHED_KIND) };
#undef FASTSCHED_KIND

#define FASTSCHED_ONE(...) +1
inline constexpr int kKinds = FASTSCHED_SCHEDULES(FASTSCHED_ONE);
#undef FASTSCHED_ONE

FASTSCHED_HD constexpr bool is_composite(Kind kind) {
  return kind == Kind::sequential || kind == Kind::chained;
}

// Whether a metric decides the learning rates.
FASTSCHED_HD constexpr bool is_plateau(Kind kind) {
  return kind == Kind::plateau || kind == Kind::warmup_plateau || kind == Kind::greedy;
}

// Whether its first step, when it begins in the middle of a run, takes a metric.
FASTSCHED_HD constexpr bool begins_with_metric(Kind kind) {
  return is_plateau(kind) && kind != Kind::warmup_plateau;
}

// How many parameters each group has of its own.
FASTSCHED_HD constexpr int own_params(Kind kind) {
#define FASTSCHED_OWN(kind, params, counters, own, ...) \
  case Kind::kind: return own;
  switch (kind) { FASTSCHED_SCHEDULES(FASTSCHED_OWN) }
#undef FASTSCHED_OWN
  return 0;
}

}  // namespace fastsched
