"""Video encoder settings of a dataset: H.264 and AV1.

They are written out twice, as PyAV takes them and as LeRobot records them, so that workers can
encode while LeRobot is still being imported; a test holds the two together.
"""

from typing import Any

from foundation.video import Encoder

# AV1 is LeRobot's default as it stands. For H.264: a key frame every second picture as well,
# because training reads at random. ultrafast at crf 25 loses less than that AV1, is encoded in a
# tenth of its time and decoded faster, for files half as large again (benchmarks/README.md).
# B-frames would save nothing between such key frames and make a packet's place depend on its
# neighbours.
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
    """The ``RGBEncoderConfig`` of LeRobot that says the same as ``ENCODERS[vcodec]``."""
    from lerobot.configs import RGBEncoderConfig

    if vcodec == "libsvtav1":
        return RGBEncoderConfig()
    return RGBEncoderConfig(vcodec="h264", crf=25, preset="ultrafast", extra_options={"bf": 0})
