"""The OpenTelemetry SDK of Python: logs, spans and metrics over OTLP, gRPC and HTTP with gzip."""
import logging
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

grpc, http = sys.argv[1:]
resource = Resource.create({"service.name": "shop", "service.instance.id": "py-1", "host.name": "py-host"})

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=grpc, insecure=True)))
logger = logging.getLogger("checkout")
logger.addHandler(LoggingHandler(logger_provider=logs))
logger.setLevel(logging.INFO)

spans = TracerProvider(resource=resource)
exporter = OTLPSpanExporter(endpoint=f"{http}/v1/traces", compression=Compression.Gzip)
spans.add_span_processor(BatchSpanProcessor(exporter))
with spans.get_tracer("checkout").start_as_current_span("pay", attributes={"amount": 12.5}) as span:
    logger.warning("card declined", extra={"card.kind": "debit"})
    span.set_status(trace.Status(trace.StatusCode.ERROR, "declined"))
    print(format(span.get_span_context().trace_id, "032x"))

delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
reader = PeriodicExportingMetricReader(
    OTLPMetricExporter(endpoint=grpc, insecure=True, preferred_temporality=delta), export_interval_millis=1e9
)
view = View(instrument_name="took", aggregation=ExponentialBucketHistogramAggregation())
meters = MeterProvider(resource=resource, metric_readers=[reader], views=[view])
meter = meters.get_meter("checkout")
payments, took = meter.create_counter("payments"), meter.create_histogram("took", unit="s")
for amount in (3, 4):
    payments.add(amount, {"kind": "card"})
    took.record(0.25, {"kind": "card"})
    meters.force_flush()

for provider in (logs, spans, meters):
    provider.shutdown()
