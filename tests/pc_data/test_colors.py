"""Colours of classes and of numbers."""

import numpy as np
from pc_data.colors import class_colors, number_colors


def test_a_class_keeps_its_colour():
    colors = class_colors(["car", "no such class", "Car", "no-such-class"])
    np.testing.assert_array_equal(colors[0], colors[2])
    np.testing.assert_array_equal(colors[1], colors[3])
    assert not np.array_equal(colors[0], colors[1])


def test_numbers_that_follow_one_another_look_different():
    colors = number_colors(np.arange(300))
    assert 0 <= colors.min() <= colors.max() <= 1
    assert np.abs(np.diff(colors, axis=0)).max(1).min() > 0.3
    np.testing.assert_array_equal(number_colors(np.array([7, 3, 7])), colors[[7, 3, 7]])
    assert number_colors(np.zeros(0, np.int64)).shape == (0, 3)
    pale = number_colors(np.arange(9), saturation=0.2)
    assert pale.min() >= 0.8 - 1e-9
