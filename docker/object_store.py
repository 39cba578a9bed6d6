"""An S3 service to try ``s3://`` paths with: moto's server, which forgets everything when it ends.

The buckets that the documents name are there from the start.
"""

import logging
import os
import signal

import boto3
from moto.server import ThreadedMotoServer

PORT = 9000
BUCKETS = ("interim", "checkpoints")


def main() -> None:
    """Serve until SIGTERM."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = ThreadedMotoServer(ip_address="0.0.0.0", port=PORT, verbose=False)
    server.start()
    # It believes any key.
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{PORT}",
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    for bucket in os.environ.get("BUCKETS", " ".join(BUCKETS)).split():
        client.create_bucket(Bucket=bucket)
    print(f"S3 on port {PORT}", flush=True)
    signal.sigwait(signals)
    server.stop()


if __name__ == "__main__":
    main()
