"""Every curve of a phase, in random phases, against the formula in 60 digits: within a unit in the last place.

Except those in transformers' order of operations, which ``test_by_name.py`` compares to the last bit: ``linear``,
``cosine``, ``1-sqrt``, ``inverse_sqrt`` and a falling ``polynomial``.
"""

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from fastsched import _C, Phase, PhasesLR
from fastsched.engine.program import whole
from fastsched.schedulers.phases import CURVES

from .conftest import sgd

DIGITS = 60
# The share of the way left when the share u of the phase is over: v = 1 - u, n steps, power p.
SHARES = {
    "1-square": lambda u, phase: 1 - u * u,
    "polynomial": lambda u, phase: (1 - u) ** mpf(phase.power),
    "exp2": lambda u, phase: mpf(2) ** (1 - u) - 1,
    "log": lambda u, phase: mpmath.log(1 + phase.length * (1 - u)) / mpmath.log(1 + mpf(phase.length)),
    "rex": lambda u, phase: (1 - u) / (1 - u / 2),
    "k_decay": lambda u, phase: (1 + mpmath.cos(mpmath.pi * u ** mpf(phase.power))) / 2,
    "tanh": lambda u, phase: (1 - mpmath.tanh(mpf(phase.bounds[0]) * (1 - u) + mpf(phase.bounds[1]) * u)) / 2,
}
OWN = [*SHARES, "exponential"]


def exact(phase, step):
    start, end = mpf(phase.start), mpf(phase.start if phase.end is None else phase.end)
    high, low = max(start, end), min(start, end)
    u = mpf(step) / phase.length if end <= start else 1 - mpf(step) / phase.length
    if phase.curve == "exponential":
        return high * (low / high) ** u
    return low + (high - low) * SHARES[phase.curve](u, phase)


def computed(phase, step):
    return _C.lrs_at(whole(PhasesLR(sgd([1.0]), [phase]), 1), [1.0], float(step))[0]


factors = st.floats(1e-6, 10.0) | st.sampled_from([1.0, 0.1, 0.5])


@st.composite
def phases(draw, curve):
    ends = [draw(factors), 0.0 if curve != "exponential" and draw(st.booleans()) else draw(factors)]
    rises = curve == "polynomial" or draw(st.booleans())  # a falling polynomial is transformers'
    start, end = sorted(ends, reverse=not rises)
    first = draw(st.floats(-20.0, 5.0))
    return Phase(
        draw(st.integers(1, 9) | st.integers(1, 10**6)),
        curve,
        start,
        end,
        power=draw(st.sampled_from([1.0, 2.0, 0.5]) | st.floats(0.1, 5.0)),
        bounds=(first, first + draw(st.floats(0.1, 10.0))),
    )


@pytest.mark.parametrize("curve", OWN)
@given(data=st.data())
def test_a_curve_is_the_formula_to_a_unit_in_the_last_place(curve, data):
    phase = data.draw(phases(curve))
    last = phase.length
    step = data.draw(st.sampled_from(sorted({0, 1 % last, last // 2, last - 1, last})) | st.integers(0, last))
    with mpmath.workdps(DIGITS):
        wanted = exact(phase, step)
        assert abs(mpf(computed(phase, step)) - wanted) <= math.ulp(float(wanted))


@pytest.mark.parametrize("curve", sorted({*CURVES} - {"constant", "inverse_sqrt", "tanh"}))
@given(start=factors, end=factors, length=st.integers(1, 10**6), power=st.floats(0.1, 5.0))
def test_a_curve_begins_and_ends_exactly_where_it_says(curve, start, end, length, power):
    phase = Phase(length, curve, start, end, power=power)
    assert computed(phase, 0) == pytest.approx(start, rel=2**-52)
    assert computed(phase, length) == pytest.approx(end, rel=2**-52)
