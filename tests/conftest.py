"""Settings for every test, made before torch is imported anywhere."""

import os

# Tests run beside each other and beside servers that they start. OpenMP threads that spin while
# they wait made such a run ten times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
