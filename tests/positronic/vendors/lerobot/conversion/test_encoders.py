import pytest

from positronic.vendors.lerobot.conversion.encoders import ENCODERS, VCODECS, lerobot_config


@pytest.mark.parametrize("vcodec", VCODECS)
def test_what_is_encoded_is_what_the_dataset_says(vcodec: str) -> None:
    config, encoder = lerobot_config(vcodec), ENCODERS[vcodec]
    assert (config.vcodec, config.pix_fmt) == (encoder.vcodec, encoder.pix_fmt)
    assert config.get_codec_options(encoder_threads=1, as_strings=True) == encoder.options
