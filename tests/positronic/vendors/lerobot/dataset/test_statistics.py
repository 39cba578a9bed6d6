import numpy as np

from positronic.vendors.lerobot.dataset.statistics import ImageStatistics, of_vectors


def test_image_statistics_are_those_of_every_pixel() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([rng.integers(10 * i, 10 * i + 100, (24, 30, 3)) for i in range(9)])
    images = images.astype(np.uint8)
    counted = ImageStatistics()
    for image in images:
        counted.add(image)
    found = counted.result()
    pixels = images.reshape(-1, 3) / 255.0
    expected = {
        "min": pixels.min(axis=0),
        "max": pixels.max(axis=0),
        "mean": pixels.mean(axis=0),
        "std": pixels.std(axis=0),
    }
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        expected[f"q{round(q * 100):02d}"] = np.quantile(pixels, q, axis=0, method="inverted_cdf")
    assert found.pop("count").tolist() == [9]
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), value, rtol=1e-12, err_msg=name)


def test_the_median_of_black_and_white_is_a_value_that_occurs() -> None:
    counted = ImageStatistics()
    counted.add(np.repeat([0, 255], 6).reshape(2, 2, 3).astype(np.uint8))
    assert counted.result()["q50"].ravel().tolist() == [0, 0, 0]


def test_vector_statistics_do_not_suffer_from_float32() -> None:
    rows = (1e4 + np.random.default_rng(0).normal(size=(5000, 2))).astype(np.float32)
    found = of_vectors(rows)
    np.testing.assert_allclose(found["std"], rows.astype(np.float64).std(axis=0), rtol=1e-12)
    assert found["mean"].shape == (2,)
    assert of_vectors(np.arange(5))["q50"].tolist() == [2.0]
    assert of_vectors(np.arange(5))["count"].tolist() == [5]
