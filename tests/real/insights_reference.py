"""Azure's own exporter for OpenTelemetry, in a process and a virtual environment of its own: the reference for formats.

    python insights_reference.py models      prints the fields of its models: {type: {field: whether it must be there}}
    python insights_reference.py send        sends what one line of JSON on stdin tells, to the connection string in the
                                             environment: {"request": {..}, "event": {..}} with a span's attributes
"""

import datetime
import json
import os
import sys

# Nothing to anybody but the collector: no statistics about itself, no remote settings, no item about the resource.
os.environ["APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL"] = "true"
os.environ["APPLICATIONINSIGHTS_SDKSTATS_DISABLED"] = "true"
os.environ["APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED"] = "true"
os.environ["APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED"] = "true"
os.environ["OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"] = "otel"

from azure.monitor.opentelemetry.exporter import (  # noqa: E402
    AzureMonitorLogExporter,
    AzureMonitorMetricExporter,
    AzureMonitorTraceExporter,
)
from azure.monitor.opentelemetry.exporter._generated.exporter import models  # noqa: E402
from opentelemetry import trace  # noqa: E402
from opentelemetry._logs import LogRecord  # noqa: E402
from opentelemetry.sdk._logs import LoggerProvider  # noqa: E402
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402

MODELS = ("TelemetryItem", "RequestData", "MetricsData", "MetricDataPoint", "TelemetryEventData")


def print_models():
    """Optional fields are those whose type takes None."""
    found = {}
    for name in MODELS:
        model = getattr(models, name)
        annotations = {key: text for kind in reversed(model.__mro__) for key, text in vars(kind).get("__annotations__", {}).items()}
        model(**({"version": 2} if name.endswith("Data") else {}))
        found[name] = {
            field._rest_name: "Optional" not in str(annotations[key])
            for key, field in model._attr_to_rest_field.items()
        }
    print(json.dumps(found))


def send():
    told = json.loads(sys.stdin.readline())
    resource = Resource.create({"service.name": "scoregate", "service.instance.id": told["instance"]})
    options = {"connection_string": os.environ["APPLICATIONINSIGHTS_CONNECTION_STRING"], "disable_offline_storage": True}
    send_request(told["request"], resource, options)
    send_metrics(resource, options)
    send_event(told["event"], resource, options)


def send_request(request, resource, options):
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(SimpleSpanProcessor(AzureMonitorTraceExporter(tracer_provider=tracing, **options)))
    parent = trace.SpanContext(
        int(request["trace_id"], 16), int(request["parent_id"], 16), is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )  # fmt: skip
    start = int(datetime.datetime.fromisoformat(request["time"]).timestamp() * 1e9)
    span = tracing.get_tracer("reference").start_span(
        request["name"], trace.set_span_in_context(trace.NonRecordingSpan(parent)), trace.SpanKind.SERVER,
        request["attributes"], start_time=start,
    )  # fmt: skip
    span.end(start + int(request["duration_ms"] * 1e6))
    tracing.shutdown()


def send_metrics(resource, options):
    reader = PeriodicExportingMetricReader(AzureMonitorMetricExporter(**options), export_interval_millis=3_600_000)
    metering = MeterProvider([reader], resource=resource)
    meter = metering.get_meter("reference")
    meter.create_counter("calls").add(3, {"service": "iris"})
    meter.create_gauge("in_flight").set(2, {"service": "iris"})
    histogram = meter.create_histogram("duration", unit="s")
    for value in (0.5, 1.5):
        histogram.record(value, {"service": "iris"})
    metering.shutdown()


def send_event(event, resource, options):
    logging = LoggerProvider(resource=resource)
    logging.add_log_record_processor(SimpleLogRecordProcessor(AzureMonitorLogExporter(**options)))
    now = int(datetime.datetime.now().timestamp() * 1e9)
    attributes = {"microsoft.custom_event.name": event["name"], **event["properties"]}
    logging.get_logger("reference").emit(LogRecord(timestamp=now, observed_timestamp=now, attributes=attributes))
    logging.shutdown()


if __name__ == "__main__":
    {"models": print_models, "send": send}[sys.argv[1]]()
