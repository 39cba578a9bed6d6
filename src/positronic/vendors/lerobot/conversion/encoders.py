"""Video encoder settings of a dataset: H.264 and AV1.

They are defined twice, for PyAV and for LeRobot's metadata, so that workers can encode while
LeRobot is still being imported; a test checks that both agree.
"""

from typing import Any

from foundation.video import Encoder

# AV1 has LeRobot's default settings. H.264 also has a key frame every second frame, because
# training reads at random. ultrafast at crf 25 loses less than that AV1, encodes in a tenth of the
# time and decodes faster, with files 50 % larger (benchmarks/README.md). Without B-frames, which
# would save nothing between such key frames, packets are in display order.
ENCODERS = {
    "h264": Encoder(
        "h264",
        "yuv420p",
        {"g": "2", "crf": "25", "preset": "ultrafast", "threads": "1", "bf": "0"},
    ),
    "libsvtav1": Encoder(
        "libsvtav1",
        "yuv420p",
        {"g": "2", "crf": "30", "preset": "12", "svtav1-params": "fast-decode=0:lp=1"},
    ),
}
VCODECS = tuple(ENCODERS)


def lerobot_config(vcodec: str) -> Any:
    """LeRobot's ``RGBEncoderConfig`` equivalent to ``ENCODERS[vcodec]``."""
    from lerobot.configs import RGBEncoderConfig

    if vcodec == "libsvtav1":
        return RGBEncoderConfig()
    return RGBEncoderConfig(vcodec="h264", crf=25, preset="ultrafast", extra_options={"bf": 0})
