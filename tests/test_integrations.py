"""The transformers callback, with transformers' own handler; tests/frameworks has complete runs, and Lightning."""

import json
import subprocess
import sys

import pytest

import fastsched

pytest.importorskip("transformers.trainer_callback")

from transformers.trainer_callback import CallbackHandler, TrainerControl, TrainerState

from fastsched.integrations.transformers import EarlyStoppingCallback

LOSSES = [1.0, 0.5, 0.6, 0.7, 0.4, 0.8, 0.9, 1.0, 1.1]


class Arguments:
    """What the callback reads of TrainingArguments, which need accelerate."""

    def __init__(self, metric_for_best_model=None, greater_is_better=None, eval_strategy="epoch"):
        self.metric_for_best_model = metric_for_best_model
        self.greater_is_better = greater_is_better
        self.eval_strategy = eval_strategy
        self.eval_on_start = False


class Training:
    def __init__(self, callback, **arguments):
        self.arguments, self.state, self.control = Arguments(**arguments), TrainerState(), TrainerControl()
        self.handler = CallbackHandler([callback], None, None, None, None)
        self.handler.on_train_begin(self.arguments, self.state, self.control)

    def evaluate(self, **metrics):
        self.handler.on_evaluate(self.arguments, self.state, self.control, metrics)

    def go_on(self):
        self.handler.on_step_begin(self.arguments, self.state, self.control)

    def stopped_after(self, values, name="eval_loss"):
        """The evaluation after which it stopped; None if it did not."""
        for count, value in enumerate(values, 1):
            self.evaluate(**{name: value})
            if self.control.should_training_stop:
                return count
            self.go_on()
        return None


@pytest.mark.parametrize("settings", [{"patience": 1}, {"patience": 2}, {"patience": 2, "patience_counts": "keras"}])
def test_it_stops_where_the_stopper_does(settings):
    stopper = fastsched.EarlyStopping(**settings)
    stops = [bool(stopper.step(loss)) for loss in LOSSES]
    assert True in stops
    assert Training(EarlyStoppingCallback(**settings)).stopped_after(LOSSES) == stops.index(True) + 1


def test_nothing_stops_that_gets_better():
    assert Training(EarlyStoppingCallback(patience=0)).stopped_after([3.0, 2.0, 1.0]) is None


@pytest.mark.parametrize("name", ["accuracy", "eval_accuracy"])
def test_the_metric_by_either_name(name):
    callback = EarlyStoppingCallback(name, mode="max", patience=0)
    assert Training(callback).stopped_after([0.1, 0.2, 0.1], "eval_accuracy") == 3


def test_metric_and_mode_are_those_of_the_arguments():
    callback = EarlyStoppingCallback(patience=0)
    training = Training(callback, metric_for_best_model="accuracy", greater_is_better=True)
    assert training.stopped_after([0.1, 0.2, 0.1], "eval_accuracy") == 3
    assert callback.stopper.mode == "max"


@pytest.mark.parametrize(("metric", "settings"), [("loss", {}), (None, {"mode": "min"})])
def test_mode_is_the_callbacks_where_it_says_so_or_has_a_metric(metric, settings):
    callback = EarlyStoppingCallback(metric, **settings)
    Training(callback, metric_for_best_model="accuracy", greater_is_better=True)
    assert callback.stopper.mode == "min"


def test_a_checkpoint_goes_on():
    whole = Training(EarlyStoppingCallback(patience=2)).stopped_after(LOSSES)
    callback = EarlyStoppingCallback(patience=2)
    assert Training(callback).stopped_after(LOSSES[:4]) is None
    written = json.loads(json.dumps(callback.state()))
    resumed = EarlyStoppingCallback.from_state(written)
    assert resumed.state() == callback.state()
    assert Training(resumed).stopped_after(LOSSES[4:]) == whole - 4


def test_the_state_before_anything_is_measured():
    written = json.loads(json.dumps(EarlyStoppingCallback("accuracy", mode="max").state()))
    assert EarlyStoppingCallback.from_state(written).stopper.best == -float("inf")


def test_a_metric_that_is_missing():
    training = Training(EarlyStoppingCallback("los"))
    training.evaluate(eval_loss=1.0, eval_runtime=2.0)
    with pytest.raises(ValueError, match=r"metric_for_best_model='eval_los' was not .* 'eval_loss', 'eval_runtime'$"):
        training.go_on()


def test_a_metric_that_is_missing_at_the_last_evaluation():
    training = Training(EarlyStoppingCallback("los"))
    training.evaluate(eval_loss=1.0)
    with pytest.raises(ValueError, match="eval_los"):
        training.handler.on_train_end(training.arguments, training.state, training.control)


@pytest.mark.parametrize("name", ["a_loss", "b_loss"])
def test_several_data_sets_are_evaluated_one_by_one(name):
    callback = EarlyStoppingCallback(name)
    training = Training(callback)
    for _ in range(2):
        training.evaluate(eval_a_loss=1.0)
        training.evaluate(eval_b_loss=2.0)
        training.go_on()
    assert callback.stopper.last_epoch == 2


def test_an_evaluation_outside_of_training_is_not_counted():
    callback = EarlyStoppingCallback()
    training = Training(callback)
    training.evaluate(eval_loss=1.0)
    training.handler.on_train_end(training.arguments, training.state, training.control)
    training.evaluate(eval_loss=1.0)
    training.evaluate(test_loss=1.0)
    assert callback.stopper.last_epoch == 1


def test_a_trainer_that_never_evaluates():
    with pytest.raises(ValueError, match="eval_strategy"):
        Training(EarlyStoppingCallback(), eval_strategy="no")


@pytest.mark.parametrize("name", ["model", "device", "process_group", "reduce_op"])
def test_what_the_trainer_has_is_refused(name):
    with pytest.raises(TypeError, match=name):
        EarlyStoppingCallback(**{name: None})


def test_other_arguments_are_checked_by_the_stopper():
    with pytest.raises(ValueError, match="patience"):
        EarlyStoppingCallback(patience=-1)


def test_frameworks_are_imported_by_their_own_module_only():
    code = (
        "import fastsched.integrations, sys; print({'transformers', 'lightning', 'pytorch_lightning'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "set()\n"
