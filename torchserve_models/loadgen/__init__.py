"""A load generator for HTTP and gRPC inference servers: closed and open loops, with every answer checked.

It shares the machine with the server that it measures, so requests are built before and results are evaluated
after a measurement.
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
    Measurement,
    Summary,
    median_summary,
    merge_measurements,
    percentile,
)
from torchserve_models.loadgen.processes import LoadGenerator

__all__ = [
    "ClosedLoop",
    "DrainedClosedLoop",
    "LoadGenerator",
    "LoadJob",
    "Measurement",
    "OpenLoop",
    "Summary",
    "Target",
    "median_summary",
    "merge_measurements",
    "multipart_request",
    "percentile",
    "post_request",
    "run_job",
    "send_probe",
    "wait_until_answering",
]
