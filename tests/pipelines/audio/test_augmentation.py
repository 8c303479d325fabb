"""Random changes of clips: reproducible, within their limits, and what they say they are."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.audio.augmentation import augment
from pipelines.audio.config import Augmentation
from pipelines.errors import UserError

RNG = np.random.default_rng(0)
CLIP = (0.3 * np.sin(2 * np.pi * 440 * np.arange(4000) / 16000)).astype(np.float32)
EVERYTHING = Augmentation(speed=0.1, noise=0.8, gain=6)
ALONE = [Augmentation(speed=0.1), Augmentation(noise=1.0), Augmentation(gain=12), EVERYTHING]
PARTS = {"speed": Augmentation(speed=0.2), "noise": Augmentation(noise=1.0), "gain": Augmentation(gain=12)}


def changed(config, index, audio=CLIP, epoch=7):
    return augment(tf.constant(audio), tf.constant([epoch, index]), config).numpy()


def power(x):
    return np.mean(np.square(x, dtype=np.float64))


def test_all_is_off_by_default():
    np.testing.assert_array_equal(changed(Augmentation(), 1), CLIP)


@pytest.mark.parametrize("config", ALONE, ids=str)
def test_a_clip_depends_on_its_own_seed_alone(config):
    alone = [changed(config, i) for i in range(8)]
    assert len({clip.tobytes() for clip in alone}) >= 6
    clips = tf.data.Dataset.range(8).map(
        lambda i: augment(CLIP, tf.stack([7, tf.cast(i, tf.int32)]), config), num_parallel_calls=4
    )
    for clip, expected in zip(clips.as_numpy_iterator(), alone, strict=True):
        np.testing.assert_allclose(clip, expected, rtol=1e-4, atol=1e-6)  # a graph may multiply in another order
    assert any(not np.array_equal(changed(config, i, epoch=8), alone[i]) for i in range(2))


def test_one_change_leaves_the_draws_of_the_others_alone():
    for index in range(5):
        loud = changed(Augmentation(gain=12), index)
        faster = changed(Augmentation(speed=0.1), index)
        both = changed(Augmentation(speed=0.1, gain=12), index)
        assert len(both) == len(faster)
        np.testing.assert_allclose(both, faster * (loud[100] / CLIP[100]), rtol=1e-4, atol=1e-6)


def test_speed_moves_length_and_pitch_alike():
    lengths = set()
    for index in range(60):
        clip = changed(Augmentation(speed=0.1), index)
        lengths.add(len(clip))
        percents = round(100 * 4000 / len(clip))
        assert 90 <= percents <= 110 and len(clip) == -(-4000 * 100 // percents)
        expected = 0.3 * np.sin(2 * np.pi * 440 * percents / 100 * np.arange(len(clip)) / 16000)
        np.testing.assert_allclose(clip[80:-80], expected[80:-80], atol=1e-3)
    assert len(lengths) > 15 and min(lengths) == 3637 and max(lengths) == 4445


def test_noise_is_as_loud_as_the_ratio_says():
    config = Augmentation(noise=1.0, least_snr=5, most_snr=25)
    ratios, noises = [], []
    for index in range(80):
        noise = changed(config, index) - CLIP
        ratios.append(10 * np.log10(power(CLIP) / power(noise)))
        noises.append(noise / np.sqrt(power(noise)))
    assert 4.99 < min(ratios) < 8 and 22 < max(ratios) < 25.01
    assert abs(np.mean(ratios) - 15) < 3
    assert abs(np.corrcoef(noises[0], noises[1])[0, 1]) < 0.1  # a noise of its own for each


def test_noise_comes_with_its_probability():
    config = Augmentation(noise=0.3)
    count = sum(not np.array_equal(changed(config, i, audio=CLIP[:50]), CLIP[:50]) for i in range(400))
    assert 90 < count < 150


def test_gain_is_within_its_decibels_either_way():
    levels = [20 * np.log10(changed(Augmentation(gain=6), i)[10] / CLIP[10]) for i in range(100)]
    assert -6.01 < min(levels) < -5 and 5 < max(levels) < 6.01


def test_silence_stays_silence_and_finite():
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(changed(PARTS["noise"], 1, silence), 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 50), st.sampled_from(ALONE))
def test_any_seed_gives_a_clip(seed, count, config):
    clip = changed(config, seed, audio=CLIP[:count], epoch=seed)
    assert clip.dtype == np.float32 and np.isfinite(clip).all()
    assert -(-count * 100 // 110) <= len(clip) <= -(-count * 100 // 90)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"speed": 0.6}, "--augmentation.speed 0.6: takes a number from 0 to 0.5"),
        ({"noise": -1.0}, "--augmentation.noise -1.0: takes a number from 0 to 1"),
        ({"gain": 41.0}, "--augmentation.gain 41.0: takes a number from 0 to 40"),
        ({"least_snr": 31.0}, "--augmentation.least-snr 31.0 --augmentation.most-snr 30.0: take numbers from"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_flag(options, said):
    EVERYTHING.check()
    with pytest.raises(UserError) as caught:
        Augmentation(**options).check()
    assert str(caught.value).startswith(said)
