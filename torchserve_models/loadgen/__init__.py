"""A load generator for HTTP and gRPC inference servers: closed and open loops, with every answer checked.

The load generator shares the machine with the measured server. Requests are therefore built before a measurement,
and results are evaluated after it.
"""

from torchserve_models.loadgen.http import Target, multipart_request, post_request
from torchserve_models.loadgen.loops import (
    ClosedLoop,
    DrainedClosedLoop,
    LoadJob,
    OpenLoop,
    run_job,
    send_probe,
    wait_until_answering,
)
from torchserve_models.loadgen.measurement import (
    LoadStatistics,
    Measurement,
    median_summary,
    merge_measurements,
    percentile,
    relative_spread,
)
from torchserve_models.loadgen.processes import LoadGenerator

__all__ = [
    "ClosedLoop",
    "DrainedClosedLoop",
    "LoadGenerator",
    "LoadJob",
    "LoadStatistics",
    "Measurement",
    "OpenLoop",
    "Target",
    "median_summary",
    "merge_measurements",
    "multipart_request",
    "percentile",
    "post_request",
    "relative_spread",
    "run_job",
    "send_probe",
    "wait_until_answering",
]
