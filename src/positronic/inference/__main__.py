"""``python -m positronic.inference``, the same as ``positronic-inference``."""

from positronic.inference.command import main

main()
